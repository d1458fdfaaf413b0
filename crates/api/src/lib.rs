//! The AgentRouter API as the protos in `proto/` define it: generated messages, tonic services and
//! clients, and the descriptor set. No logic lives here, and nothing but how rpcs are named is written by hand.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

/// The encoded `google.protobuf.FileDescriptorSet` of every file, imports and comments included.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// The same descriptors, parsed. Extensions (`google.api.http`, access policies) are kept.
pub static DESCRIPTOR_POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    // The bytes come from this crate's build script, so failing to parse them is a broken build.
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap_or_default()
});

/// Takes in the unary rpcs of services: the path of each, `/package.Service/Method`, and what calls it.
///
/// The functions `..._rpcs` beside the generated services tell theirs.
pub trait UnaryRpcs {
    /// Takes in one.
    fn add<Q, A, F, R>(&mut self, path: &'static str, call: F)
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + 'static,
        F: Fn(tonic::Request<Q>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<tonic::Response<A>, tonic::Status>> + Send + 'static;
}

macro_rules! package {
    ($doc:literal, $module:ident, $package:literal) => {
        #[doc = $doc]
        #[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, unused_qualifications)]
        pub mod $module {
            tonic::include_proto!($package);
        }
    };
}

// Generated modules refer to each other by relative paths that follow the package names.
pub mod agentrouter {
    //! Packages by their full names; use the aliases at the crate root.
    pub mod audit {
        //! The audit log.
        package!("Version 1.", v1, "agentrouter.audit.v1");
    }
    pub mod common {
        //! Messages shared by the lists of every service.
        package!("Version 1.", v1, "agentrouter.common.v1");
    }
    pub mod configurator {
        //! Configurations and their delivery.
        package!("Version 1.", v1, "agentrouter.configurator.v1");
    }
    pub mod identity {
        //! Identities, API keys and sessions.
        package!("Version 1.", v1, "agentrouter.identity.v1");
    }
    pub mod options {
        //! Method options.
        package!("Version 1.", v1, "agentrouter.options.v1");
    }
    pub mod providers {
        //! AI providers, MCP servers and profiles.
        package!("Version 1.", v1, "agentrouter.providers.v1");
    }
    pub mod tenancy {
        //! Customers and projects.
        package!("Version 1.", v1, "agentrouter.tenancy.v1");
    }
    pub mod workspaces {
        //! Workspaces.
        package!("Version 1.", v1, "agentrouter.workspaces.v1");
    }
}

pub use agentrouter::audit::v1 as audit;
pub use agentrouter::common::v1 as common;
pub use agentrouter::configurator::v1 as configurator;
pub use agentrouter::identity::v1 as identity;
pub use agentrouter::options::v1 as options;
pub use agentrouter::providers::v1 as providers;
pub use agentrouter::tenancy::v1 as tenancy;
pub use agentrouter::workspaces::v1 as workspaces;
