//! A client of any kind: works until the server is gone, and goes on with the next one.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::call::Gone;
use crate::common::Api;
use crate::worker::Worker;
use crate::writers::{CustomerWriter, KeyWriter, ProviderWriter, Trigger};

/// What clients and those who set them to work tell each other.
#[derive(Debug, Clone)]
pub(crate) struct Signs {
    /// Finish what is open, and nothing more.
    pub(crate) stop: CancellationToken,
    /// How many found the server as they left it, and go on.
    pub(crate) at_work: watch::Sender<usize>,
}

pub(crate) enum Client {
    Provider(ProviderWriter),
    Customer(CustomerWriter),
    Keys(KeyWriter),
    Trigger(Trigger),
    Worker(Worker),
}

impl Client {
    /// Works until it is told to stop and knows what became of everything it did, or the server is gone.
    pub(crate) async fn work(mut self, api: Api, signs: Signs) -> (Self, Result<(), Gone>) {
        let ended = self.steps(&api, &signs).await;
        (self, ended)
    }

    async fn steps(&mut self, api: &Api, Signs { stop, at_work }: &Signs) -> Result<(), Gone> {
        self.resume(api).await?;
        at_work.send_modify(|clients| *clients += 1);
        while !stop.is_cancelled() || !self.is_settled() {
            match self {
                Self::Provider(writer) => writer.step(api).await?,
                Self::Customer(writer) => writer.step(api).await?,
                Self::Keys(writer) => writer.step(api).await?,
                Self::Trigger(trigger) => trigger.step(api).await?,
                Self::Worker(worker) => worker.step(api).await?,
            }
        }
        Ok(())
    }

    /// What it does first on a new server: writers see whether what they were told still stands.
    async fn resume(&mut self, api: &Api) -> Result<(), Gone> {
        match self {
            Self::Provider(writer) => writer.look(api).await,
            Self::Customer(writer) => writer.look(api).await,
            Self::Keys(writer) => writer.step(api).await,
            Self::Trigger(trigger) => trigger.step(api).await,
            Self::Worker(worker) => worker.look(api).await,
        }
    }

    fn is_settled(&self) -> bool {
        match self {
            Self::Provider(writer) => writer.is_settled(),
            Self::Customer(writer) => writer.is_settled(),
            Self::Keys(writer) => writer.is_settled(),
            Self::Trigger(trigger) => trigger.is_settled(),
            Self::Worker(worker) => worker.is_settled(),
        }
    }
}
