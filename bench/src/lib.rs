//! What the measurements share: medians and their spread.

/// The values of one thing that was measured several times.
#[derive(Clone, Debug, Default)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Adds a value.
    pub fn push(&mut self, value: f64) {
        let at = self.0.partition_point(|other| *other < value);
        self.0.insert(at, value);
    }

    /// The value below which so much of the sample lies, 0 to 1; 0 if nothing was measured.
    pub fn quantile(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1) as f64;
        self.0.get((last * part).round() as usize).copied().unwrap_or_default()
    }

    /// `median (least to 90 % to greatest)`, with one decimal.
    pub fn summary(&self) -> String {
        let [least, median, most, greatest] = [0.0, 0.5, 0.9, 1.0].map(|part| self.quantile(part));
        format!("{median:6.1}  {least:6.1}  {most:6.1}  {greatest:6.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_do_not_depend_on_the_order_of_measuring() {
        let mut sample = Sample::default();
        [5.0, 1.0, 4.0, 2.0, 3.0].into_iter().for_each(|value| sample.push(value));
        assert_eq!([0.0, 0.5, 1.0].map(|part| sample.quantile(part)), [1.0, 3.0, 5.0]);
    }
}
