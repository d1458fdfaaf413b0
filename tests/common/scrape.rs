//! Metrics, read as Prometheus does.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::program::PATIENCE;

/// The samples of one scrape by name and labels.
#[derive(Debug, Clone)]
pub(crate) struct Scrape {
    pub(crate) text: String,
    samples: HashMap<String, f64>,
}

impl Scrape {
    pub(crate) async fn of(base_url: &str) -> Self {
        let response = reqwest::get(format!("{base_url}/metrics")).await.unwrap();
        assert_eq!(response.status(), 200);
        let media = response.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(media.starts_with("application/openmetrics-text; version=1.0.0"), "{media}");
        let text = response.text().await.unwrap();
        assert!(text.ends_with("# EOF\n"), "{text}");
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        });
        Self { samples: samples.collect(), text: text.clone() }
    }

    /// A sample, by its name without the product's and its labels in the order they are written.
    #[track_caller]
    pub(crate) fn value(&self, name: &str) -> f64 {
        let value = self.samples.get(&format!("agentrouter_{name}"));
        *value.unwrap_or_else(|| panic!("no {name} in\n{}", self.text))
    }

    /// The sum of all samples of a name with these characters in their labels.
    pub(crate) fn sum(&self, name: &str, label: &str) -> f64 {
        let name = format!("agentrouter_{name}{{");
        let samples = self.samples.iter();
        samples.filter(|(key, _)| key.starts_with(&name) && key.contains(label)).map(|(_, value)| value).sum()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.samples.keys().map(String::as_str)
    }
}

/// Scrapes until it is as it should be.
pub(crate) async fn until(base_url: &str, what: &str, is: impl Fn(&Scrape) -> bool) -> Scrape {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let scrape = Scrape::of(base_url).await;
        if is(&scrape) {
            return scrape;
        }
        assert!(Instant::now() < deadline, "never: {what}\n{}", scrape.text);
        sleep(Duration::from_millis(20)).await;
    }
}
