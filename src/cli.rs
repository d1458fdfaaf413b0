//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{ServeArgs, StoreArgs};
use crate::copy_store::CopyArgs;
use crate::demo::DemoArgs;

/// Management plane for fleets of AI-gateway data planes.
#[derive(Debug, Parser)]
#[command(name = "agentrouter", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve gRPC, gRPC-Web and REST on one port.
    Serve(Box<ServeArgs>),
    /// Bring the database schema up to date, and do nothing else.
    Migrate(StoreArgs),
    /// Manage API keys directly in the database, as when no working key is left.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Copy a whole installation to an empty database of either engine, while nobody uses either.
    CopyStore(CopyArgs),
    /// Show the main job on an empty embedded database: a change made by a person reaches a data plane.
    Demo(DemoArgs),
    /// Print the OpenAPI document of the REST API, as `/openapi.json` serves it.
    Openapi,
}

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Create a management key and show it, once.
    Create(CreateKeyArgs),
    /// List the keys of a customer, without their secrets.
    List(ListKeysArgs),
    /// Seal everything under the first configured key-encryption key, also while servers serve.
    RotateKek(StoreArgs),
    /// Revoke a key.
    Revoke(RevokeKeyArgs),
}

#[derive(Debug, Args)]
pub struct CreateKeyArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Slug or row id of the customer.
    #[arg(long, default_value = "default")]
    pub customer: String,
    /// What the key may do.
    #[arg(long, value_enum, default_value_t = KeyRole::Operator)]
    pub role: KeyRole,
    /// A name for people.
    #[arg(long, default_value = "created on the command line")]
    pub display_name: String,
}

#[derive(Debug, Args)]
pub struct ListKeysArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Slug or row id of the customer.
    #[arg(long, default_value = "default")]
    pub customer: String,
}

#[derive(Debug, Args)]
pub struct RevokeKeyArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Row id of the key.
    pub api_key_id: String,
}

/// The role of a management key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyRole {
    Operator,
    Admin,
    Viewer,
}
