//! Real clients, real containers, real packets.
