//! A real gRPC server in a runtime of its own, which can be killed with all its connections.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use http::Request;
use prost_reflect::DescriptorPool;
use tokio::runtime::{Builder, Runtime};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower::ServiceExt as _;

use crate::backend::backend;

/// Waits for what a slow machine does at last.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Upstream {
    runtime: Option<Runtime>,
    pub(crate) address: SocketAddr,
}

impl Upstream {
    /// tonic's own server, on a free port.
    pub(crate) fn start(routes: Routes) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), routes)
    }

    /// As [`Upstream::start`]; the port may have been another one's until now.
    pub(crate) fn start_at(address: SocketAddr, routes: Routes) -> Self {
        Self::serve(address, |listener| async move {
            let incoming = TcpIncoming::from(listener);
            // How it ends is the test's business.
            drop(Server::builder().add_routes(routes).serve_with_incoming(incoming).await);
        })
    }

    /// Any server.
    pub(crate) fn serve<F>(address: SocketAddr, serve: impl FnOnce(tokio::net::TcpListener) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let began = Instant::now();
        let listener = loop {
            match TcpListener::bind(address) {
                Ok(listener) => break listener,
                // Whoever had it is still going.
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let serving = {
            let _inside = runtime.enter();
            serve(tokio::net::TcpListener::from_std(listener).expect("a listener"))
        };
        runtime.spawn(serving);
        Self { runtime: Some(runtime), address }
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The test services, with health.
pub(crate) fn services(pool: DescriptorPool) -> Routes {
    let (_, health) = tonic_health::server::health_reporter();
    with_backend(Routes::new(health), pool)
}

/// The test services behind others.
pub(crate) fn with_backend(others: Routes, pool: DescriptorPool) -> Routes {
    let backend = backend(pool).map_request(|request: Request<axum::body::Body>| request.map(Body::new));
    others.into_axum_router().fallback_service(backend).into()
}
