//! Bars.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_as_wide_as_asked() {
        for share in [-1.0, 0.0, 0.33, 1.0, 2.0, f64::NAN] {
            assert_eq!(gauge(share, 8).chars().count(), 8, "{share}");
        }
    }
}
