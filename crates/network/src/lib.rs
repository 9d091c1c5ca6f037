//! The shell around netplan: links, routes, nftables, DNS.
