//! Services: what a client gets through the rules that `netplan` plans.
