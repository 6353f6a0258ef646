//! The values of one thing that was measured several times: medians and their spread.

/// Values in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Adds a value.
    pub fn push(&mut self, value: f64) {
        let at = self.0.partition_point(|other| *other < value);
        self.0.insert(at, value);
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value below which so much of the sample lies, 0 to 1; 0 if nothing was measured.
    pub fn quantile(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1) as f64;
        self.0.get((last * part).round() as usize).copied().unwrap_or_default()
    }

    /// The value in the middle, or the mean of the two there; 0 if nothing was measured.
    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match (self.0.len(), self.0.len() % 2) {
            (0, _) => 0.0,
            (_, 0) => (self.0[middle - 1] + self.0[middle]) / 2.0,
            (_, _) => self.0[middle],
        }
    }

    /// `median (least to 90 % to greatest)`, with one decimal.
    pub fn summary(&self) -> String {
        let [least, median, most, greatest] = [0.0, 0.5, 0.9, 1.0].map(|part| self.quantile(part));
        format!("{median:6.1}  {least:6.1}  {most:6.1}  {greatest:6.1}")
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut sample = Sample::default();
        values.into_iter().for_each(|value| sample.push(value));
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_do_not_depend_on_the_order_of_measuring() {
        let sample: Sample = [5.0, 1.0, 4.0, 2.0, 3.0].into_iter().collect();
        assert_eq!([0.0, 0.5, 1.0].map(|part| sample.quantile(part)), [1.0, 3.0, 5.0]);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        for (values, median) in [(&[][..], 0.0), (&[7.0], 7.0), (&[1.0, 9.0], 5.0), (&[9.0, 1.0, 2.0], 2.0)] {
            assert_eq!(values.iter().copied().collect::<Sample>().median(), median, "{values:?}");
        }
    }
}
