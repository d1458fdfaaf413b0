//! A slot on its way: what is tried, and what is left of it.

use std::collections::BTreeSet;

use agentrouter_api::configurator::Configuration;
use agentrouter_liaison::{Applied, Rejected};
use agentrouter_manifests::Options;

use crate::content::{owner, revert};
use crate::object::Desired;
use crate::pass::applied;
use crate::state::Held;

/// A slot during a pass.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) held: Held,
    content: Option<Configuration>,
    /// The parts that are in their last good state, and have been refused in it if they are refused again.
    reverted: BTreeSet<String>,
    /// Why the whole content was refused.
    refused: Option<String>,
    before: Held,
}

impl Candidate {
    /// `anew` tries the newest content; else what was applied is brought back.
    pub(crate) fn new(anew: bool, mut held: Held) -> Self {
        let before = held.clone();
        let content = if anew {
            held.outcome.rejected.clear();
            held.outcome.refused = None;
            Some(held.desired.clone())
        } else {
            held.effective.clone()
        };
        Self { held, content, reverted: BTreeSet::new(), refused: None, before }
    }

    /// What shall be there.
    pub(crate) fn content(&self) -> Option<&Configuration> {
        self.content.as_ref()
    }

    /// Takes a part back to what was there before; what is refused even so is taken out.
    pub(crate) fn reject_part(&mut self, part: &str, reason: &str) {
        let first = self.reverted.insert(part.to_owned());
        let good = self.held.effective.as_ref().filter(|_| first);
        if let Some(content) = &mut self.content {
            revert(content, part, good);
        }
        self.held.outcome.rejected.entry(part.to_owned()).or_insert_with(|| reason.to_owned());
    }

    /// Takes back what an object came from: a part, or everything where it is not of one part alone.
    ///
    /// # Errors
    /// The last good state is refused as a whole, too.
    pub(crate) fn reject_object(
        &mut self,
        desired: &Desired,
        reason: &str,
        options: &Options,
    ) -> Result<(), Rejected> {
        let Some(content) = &self.content else {
            return Ok(());
        };
        if let Some(part) = owner(content, desired.kind.name, &desired.name, options) {
            let part = part.to_owned();
            self.reject_part(&part, reason);
            return Ok(());
        }
        if self.refused.is_some() || !self.is_anew() {
            return Err(Rejected::transient(reason));
        }
        self.refused = Some(reason.to_owned());
        self.content.clone_from(&self.held.effective);
        self.held.outcome.rejected.clone_from(&self.before.outcome.rejected);
        Ok(())
    }

    fn is_anew(&self) -> bool {
        self.content.as_ref().is_some_and(|content| {
            (&content.id, content.version) == (&self.held.desired.id, self.held.desired.version)
        })
    }

    /// Takes down what came of it; whether that is something new.
    pub(crate) fn conclude(&mut self) -> bool {
        match &self.refused {
            Some(_) => self.held.outcome.refused = Some(self.held.desired.version),
            None => self.held.effective.clone_from(&self.content),
        }
        self.held.outcome != self.before.outcome || self.held.effective != self.before.effective
    }

    /// What is said to the one who asked for it.
    pub(crate) fn answer(&self) -> Result<Applied, Rejected> {
        match &self.refused {
            Some(reason) => Err(Rejected::permanent(reason)),
            None => Ok(applied(&self.held)),
        }
    }
}
