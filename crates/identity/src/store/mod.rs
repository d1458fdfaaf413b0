//! The SQL of this service. Every statement about a customer's rows takes the customer.

pub(crate) mod api_keys;
pub(crate) mod identities;
pub(crate) mod subjects;
pub(crate) mod tokens;
