//! Bridges, address management, published ports, container DNS.
