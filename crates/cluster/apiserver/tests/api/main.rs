//! The API server's behaviour through its one entry, `ApiServer::handle`, over a store of its own; and through the HTTPS
//! listener with a stock client where the wire itself matters.

mod access;
mod admission;
mod aggregation;
mod clients;
mod cluster;
mod custom;
mod deletion;
mod discovery;
mod hook_server;
mod hooks;
mod objects;
mod operate;
mod patches;
mod pods;
mod reading;
mod rules;
mod services;
mod wire;
