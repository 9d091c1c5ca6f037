//! What an attacker can send: the server keeps bounded memory, ends it in bounded time, and serves others meanwhile.
