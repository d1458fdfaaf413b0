//! Medians of all rounds, beside those of the handler that was written by hand.

use crate::bars;
use crate::report::Report;
use crate::stats::{Rates, digits};

use super::rival::Rival;

const MEASURE: &str = "rivals";

/// One server under one kind of request, in one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Microseconds of CPU time for a request: of the server, of the service behind it, and of the client.
    pub(crate) cpu: f64,
    pub(crate) remote_cpu: f64,
    pub(crate) client_cpu: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Resident memory in MiB.
    pub(crate) resident: f64,
}

/// All samples, each with the request and the server that it is of.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<(&'static str, Rival, Sample)>);

impl Table {
    pub(crate) fn add(&mut self, request: &'static str, rival: Rival, sample: Sample) {
        self.0.push((request, rival, sample));
    }

    /// Prints all rows, and judges.
    pub(crate) fn print(&self, report: &Report) {
        for request in ["POST", "GET"] {
            report.line(
                MEASURE,
                "",
                format_args!(
                    "{request:<24} {:>8} {:>6} {:>14} {:>6} {:>8} {:>8} {:>8} {:>6}",
                    "req/s", "of 1", "CPU us", "1 / it", "p50 ms", "p99 ms", "RSS MiB", "of 1"
                ),
            );
            for rival in Rival::ALL {
                report.line(MEASURE, "", self.row(request, rival));
            }
        }
        let client = self.samples("POST", Rival::ByHand).map(|sample| sample.client_cpu).collect();
        report.line(
            MEASURE,
            "",
            format_args!("the client took {} us of CPU time for a POST", digits(Rates::new(client).median())),
        );
        self.judge(report);
    }

    fn row(&self, request: &str, rival: Rival) -> String {
        let of = |what: fn(&Sample) -> f64| self.median(request, rival, what);
        let ratio = |what: fn(&Sample) -> f64| self.ratio(request, rival, Rival::ByHand, what);
        let mut cpu = digits(of(|sample| sample.cpu));
        let remote = of(|sample| sample.remote_cpu);
        if remote > 0.0 {
            cpu = format!("{cpu} + {}", digits(remote));
        }
        format!(
            "{:<24} {:>8} {:>6.2} {cpu:>14} {:>6.2} {:>8} {:>8} {:>8} {:>6.2}",
            rival.title(),
            digits(of(|sample| sample.rate)),
            ratio(|sample| sample.rate),
            1.0 / ratio(|sample| sample.cpu + sample.remote_cpu),
            digits(of(|sample| sample.p50)),
            digits(of(|sample| sample.p99)),
            digits(of(|sample| sample.resident)),
            ratio(|sample| sample.resident),
        )
    }

    fn judge(&self, report: &Report) {
        // Of a proxy only its own time counts against it: what its service takes it would take anyway.
        let cpu = |request, rival, other| self.ratio(request, rival, other, |sample| sample.cpu);
        report.judge(&bars::RIVALS_OURS, "", cpu("POST", Rival::ByHand, Rival::Ours));
        report.judge(&bars::RIVALS_EVERYTHING, "", cpu("POST", Rival::ByHand, Rival::Everything));
        let foreign = || Rival::ALL.into_iter().filter(|rival| rival.is_foreign());
        let fastest = foreign().map(|rival| cpu("POST", rival, Rival::Ours)).fold(f64::INFINITY, f64::min);
        report.judge(&bars::RIVALS_FASTEST, "", fastest);
        report.judge(&bars::RIVALS_ROUTES, "", cpu("GET", Rival::Routes1000, Rival::Routes10));
        let late = |rival| self.ratio("POST", Rival::Ours, rival, |sample| sample.p99);
        report.judge(&bars::RIVALS_P99, "", foreign().map(late).fold(0.0, f64::max));
    }

    fn samples(&self, request: &str, rival: Rival) -> impl Iterator<Item = &Sample> {
        let wanted = move |(of, by, _): &&(&str, Rival, Sample)| *of == request && *by == rival;
        self.0.iter().filter(wanted).map(|(_, _, sample)| sample)
    }

    fn median(&self, request: &str, rival: Rival, what: fn(&Sample) -> f64) -> f64 {
        Rates::new(self.samples(request, rival).map(what).collect()).median()
    }

    /// One by the other, each round for itself.
    fn ratio(&self, request: &str, rival: Rival, other: Rival, what: fn(&Sample) -> f64) -> f64 {
        let pairs = self.samples(request, rival).zip(self.samples(request, other));
        Rates::new(pairs.map(|(one, other)| what(one) / what(other)).collect()).median()
    }
}
