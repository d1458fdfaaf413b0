//! A client of any kind, and what is the same for all of them.

use crate::call::Gone;
use crate::common::{Api, OPERATOR_KEY};
use crate::worker::Worker;
use crate::writers::{CustomerWriter, KeyWriter, ProviderWriter, Trigger};

pub(crate) enum Client {
    Provider(Box<ProviderWriter>),
    Customer(CustomerWriter),
    Keys(KeyWriter),
    Trigger(Trigger),
    Worker(Box<Worker>),
}

impl Client {
    /// The credential it calls with.
    pub(crate) fn token(&self) -> &str {
        if let Self::Worker(worker) = self { &worker.token } else { OPERATOR_KEY }
    }

    /// What it does first on a new server: writers see whether what they were told still stands.
    pub(crate) async fn resume(&mut self, api: &Api) -> Result<(), Gone> {
        match self {
            Self::Provider(writer) => writer.look(api).await,
            Self::Customer(writer) => writer.look(api).await,
            Self::Keys(writer) => writer.step(api).await,
            Self::Trigger(trigger) => trigger.step(api).await,
            Self::Worker(worker) => worker.look(api).await,
        }
    }

    /// One call or a few; whatever is open stays so until its end is known.
    pub(crate) async fn step(&mut self, api: &Api) -> Result<(), Gone> {
        match self {
            Self::Provider(writer) => writer.step(api).await,
            Self::Customer(writer) => writer.step(api).await,
            Self::Keys(writer) => writer.step(api).await,
            Self::Trigger(trigger) => trigger.step(api).await,
            Self::Worker(worker) => worker.step(api).await,
        }
    }

    /// Whether it knows what became of everything it did.
    pub(crate) fn is_settled(&self) -> bool {
        match self {
            Self::Provider(writer) => writer.is_settled(),
            Self::Customer(writer) => writer.is_settled(),
            Self::Keys(writer) => writer.is_settled(),
            Self::Trigger(trigger) => trigger.is_settled(),
            Self::Worker(worker) => worker.is_settled(),
        }
    }
}
