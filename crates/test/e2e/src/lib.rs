//! End to end with the stock clients.
