//! The AgentRouter server.
