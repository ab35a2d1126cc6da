//! What is counted: the metrics, their labels (few, and of few values), and the counts of one worker as
//! plain integers until they are exported. It knows no host, and a request only ever adds to a number.

mod counting;
mod labels;
mod series;
#[cfg(test)]
mod tests;

pub use counting::{MOST_NAMES, Metrics, Outcome};
pub use labels::{ENDPOINTS, Endpoint, Kind, STATUSES, Source, Status};
pub use series::{NEVER, Series, Told};
