//! The peak rate of a series of events.

/// Returns the largest number of events within any span of one second. The times are in milliseconds.
pub fn peak_per_second(times: impl Iterator<Item = i64>) -> usize {
    peak_within(1_000, times)
}

/// Returns the largest number of events within any span of this length. The length and the times are in milliseconds.
pub fn peak_within(span: i64, times: impl Iterator<Item = i64>) -> usize {
    let mut times: Vec<i64> = times.collect();
    times.sort_unstable();
    let mut first = 0;
    let mut peak = 0;
    for (last, at) in times.iter().enumerate() {
        while at - times[first] >= span {
            first += 1;
        }
        peak = peak.max(last - first + 1);
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_may_span_two_seconds_of_the_clock() {
        assert_eq!(peak_per_second([0, 900, 1_000, 1_899, 1_900].into_iter()), 3);
        assert_eq!(peak_per_second([].into_iter()), 0);
    }
}
