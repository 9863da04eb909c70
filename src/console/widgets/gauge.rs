//! Bars and graphs.

/// Returns a bar of `width` columns, to an eighth of a column.
pub(crate) fn gauge(share: f64, width: usize) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let share = if share.is_finite() { share } else { 0.0 };
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0) as usize;
    let bar = format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8]);
    format!(
        "{bar}{}",
        "░".repeat(width.saturating_sub(bar.chars().count()))
    )
}

/// Returns numbers as a graph of `height` lines, the top line first, a column each. The full height is the largest number,
/// or `least`.
pub(crate) fn tall_graph(numbers: &[f64], least: f64, height: usize) -> Vec<String> {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let top = numbers
        .iter()
        .copied()
        .fold(least, f64::max)
        .max(f64::MIN_POSITIVE);
    let eighths =
        |number: &f64| ((number / top).clamp(0.0, 1.0) * height as f64 * 8.0).round() as usize;
    let line = |row: usize| {
        let below = (height - 1 - row) * 8;
        numbers
            .iter()
            .map(|number| BARS[eighths(number).saturating_sub(below).min(8)])
            .collect()
    };
    (0..height).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tall_graph_fills_from_below() {
        assert_eq!(tall_graph(&[0.0, 1.0, 2.0], 1.0, 2), ["  █", " ██"]);
        assert_eq!(tall_graph(&[], 1.0, 2), ["", ""]);
    }

    #[test]
    fn a_gauge_is_as_wide_as_asked() {
        for share in [-1.0, 0.0, 0.33, 1.0, 2.0, f64::NAN] {
            assert_eq!(gauge(share, 8).chars().count(), 8, "{share}");
        }
    }
}
