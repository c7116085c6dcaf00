//! Bars, as SVG: one picture with a group for each cell.

use std::fmt::Write as _;

use crate::report::Row;

const BAR: f64 = 14.0;
const GAP: f64 = 34.0;
const LABELS: f64 = 150.0;
const LENGTH: f64 = 420.0;

/// The medians of all rows, cell by cell, each cell to a scale of its own.
pub fn bars(rows: &[Row]) -> String {
    let mut body = String::new();
    let mut y = 8.0;
    for cell in rows.chunk_by(|one, next| one.cell == next.cell) {
        let Some(unit) = cell.first().map(Row::unit) else { continue };
        y += GAP - BAR;
        let _ =
            writeln!(body, "<text x=\"{LABELS}\" y=\"{y:.0}\" font-weight=\"bold\">{} ({unit})</text>", cell[0].cell);
        y += 6.0;
        let most = cell.iter().map(Row::headline).fold(0.0, f64::max);
        for row in cell {
            let length = LENGTH * row.headline() / most;
            let colour = match row.contestant.name {
                name if name.starts_with("attachd") => "#c2410c",
                name if name.starts_with("floor") => "#94a3b8",
                _ => "#2563eb",
            };
            let _ = writeln!(
                body,
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text><rect x=\"{LABELS}\" y=\"{y:.0}\" \
                 width=\"{length:.1}\" height=\"{:.0}\" fill=\"{colour}\"/><text x=\"{:.0}\" y=\"{:.0}\">{:.0}</text>",
                LABELS - 6.0,
                y + BAR - 4.0,
                row.contestant.name,
                BAR - 3.0,
                LABELS + length + 4.0,
                y + BAR - 4.0,
                row.headline(),
            );
            y += BAR;
        }
    }
    let (width, height) = (LABELS + LENGTH + 70.0, y + 12.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}
