//! The API as a whole: every RPC in one table, tenants to call them as, and what the calls leave behind.

#![expect(dead_code, reason = "every test binary uses a part of it")]

pub(crate) mod client;
pub(crate) mod dump;
pub(crate) mod table;
pub(crate) mod tenant;
