//! Charts as one SVG.

use std::path::Path;

use anyhow::Result;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;

use crate::growth::Chart;

const SIZE: (u32, u32) = (1000, 760);
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 90, 181),
    RGBColor(220, 50, 32),
    RGBColor(120, 120, 120),
    RGBColor(230, 160, 0),
];

/// Draws them in two columns.
pub(crate) fn draw(charts: &[Chart], path: &Path) -> Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let areas = root.split_evenly((charts.len().div_ceil(2), 2));
    for (chart, area) in charts.iter().zip(&areas) {
        let points = || chart.lines.iter().flat_map(|(_, line)| line.points());
        let right = points().map(|(x, _)| x).fold(1.0, f64::max);
        let left = points().map(|(x, _)| x).fold(right, f64::min);
        let top = points().map(|(_, y)| y).fold(1.0, f64::max) * 1.15;
        let mut builder = ChartBuilder::on(area);
        builder
            .caption(chart.title, ("sans-serif", 17))
            .margin(14)
            .x_label_area_size(38)
            .y_label_area_size(46);
        if chart.logarithmic {
            let mut context = builder.build_cartesian_2d((left..right).log_scale(), 0.0..top)?;
            lines(chart, &mut context)?;
        } else {
            let mut context = builder.build_cartesian_2d(0.0..right, 0.0..top)?;
            lines(chart, &mut context)?;
        }
    }
    root.present()?;
    Ok(())
}

fn lines<'a, DB, X>(
    chart: &Chart,
    context: &mut ChartContext<'a, DB, Cartesian2d<X, RangedCoordf64>>,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>>
where
    DB: DrawingBackend + 'a,
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    context
        .configure_mesh()
        .x_desc(chart.across)
        .y_desc(chart.up)
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 13))
        .draw()?;
    for ((name, line), colour) in chart.lines.iter().zip(COLOURS) {
        context
            .draw_series(LineSeries::new(line.points(), colour.stroke_width(2)).point_size(3))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 13))
        .draw()?;
    Ok(())
}
