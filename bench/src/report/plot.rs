//! Line plots as SVG, small enough to read here: axes, grid, lines with points, a legend.
//!
//! Owns coordinates. Never colours: those are classes, `s0` to `s5`, that the page gives a colour for light and dark.

use super::html::escape;
use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 58.0;
/// Colours, and kinds of lines, before they are used again.
const CLASSES: usize = 6;

/// How numbers are spread along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From 0, or from the given least value, in equal steps.
    Linear,
    /// In powers of ten.
    Log,
}

/// A line.
pub struct Series {
    /// For the legend.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// A plot.
pub struct Plot<'a> {
    /// For those who can't see it, and above it.
    pub title: &'a str,
    /// Under the horizontal axis.
    pub x_name: &'a str,
    /// Of the horizontal axis.
    pub x_scale: Scale,
    /// Where the horizontal axis has its marks, with their labels; made up when there are none.
    pub x_marks: Vec<(f64, String)>,
    /// Of the vertical axis.
    pub y_scale: Scale,
    /// Where the vertical axis begins and ends at least.
    pub y_range: Option<(f64, f64)>,
    /// How values are written.
    pub y_text: fn(f64) -> String,
    /// The lines.
    pub series: Vec<Series>,
}

/// One axis: from values to pixels.
struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
    begin: f64,
    end: f64,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, least: Option<(f64, f64)>, pixels: (f64, f64)) -> Axis {
        let usable = values.filter(|value| value.is_finite() && (scale == Scale::Linear || *value > 0.0));
        let (mut from, mut to) = usable.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        if from > to {
            (from, to) = (1.0, 10.0);
        }
        match (scale, least) {
            (_, Some((low, high))) => (from, to) = (from.min(low), to.max(high)),
            (Scale::Linear, None) => from = from.min(0.0),
            (Scale::Log, None) => {}
        }
        if scale == Scale::Log && to / from < 1.5 {
            (from, to) = (from / 1.5, to * 1.5);
        } else if to <= from {
            to = from + 1.0;
        }
        Axis { scale, from, to, begin: pixels.0, end: pixels.1 }
    }

    fn at(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => (value.max(self.from * 1e-3) / self.from).ln() / (self.to / self.from).ln(),
        };
        self.begin + share.clamp(-0.02, 1.02) * (self.end - self.begin)
    }

    /// Round values within the axis.
    fn marks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = nice((self.to - self.from) / 5.0);
                let first = (self.from / step).ceil();
                (0..12).map(|i| (first + f64::from(i)) * step).take_while(|v| *v <= self.to * 1.000_001).collect()
            }
            Scale::Log => {
                let decades = self.from.log10().floor() as i32..=self.to.log10().ceil() as i32;
                let factors: &[f64] = if decades.clone().count() > 4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let all = decades.flat_map(|decade| factors.iter().map(move |f| f * 10f64.powi(decade)));
                let within: Vec<f64> = all.filter(|v| (self.from * 0.999..=self.to * 1.001).contains(v)).collect();
                // Between two of them, its ends say where it is.
                if within.len() < 2 { vec![self.from, self.to] } else { within }
            }
        }
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not under the value.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-12).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|f| f * power).find(|step| *step >= value * 0.999_999).unwrap_or(power * 10.0)
}

impl Plot<'_> {
    /// The plot as an `svg` element.
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Axis::new(self.x_scale, points().map(|p| p.0), None, (LEFT, WIDTH - RIGHT));
        let y = Axis::new(self.y_scale, points().map(|p| p.1), self.y_range, (HEIGHT - BOTTOM, TOP));
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\"><title>{0}</title>\n",
            escape(self.title)
        );
        self.grid(&mut svg, &x, &y);
        for (at, series) in self.series.iter().enumerate() {
            line(&mut svg, series, at, (&x, &y), self.y_text);
        }
        self.legend(&mut svg);
        svg + "</svg>\n"
    }

    fn grid(&self, svg: &mut String, x: &Axis, y: &Axis) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for value in y.marks() {
            let at = y.at(value);
            let text = escape(&(self.y_text)(value));
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        let made_up = || x.marks().into_iter().map(|value| (value, super::words::round(value))).collect();
        let marks: Vec<(f64, String)> = if self.x_marks.is_empty() { made_up() } else { self.x_marks.clone() };
        for (value, text) in marks {
            let (at, text) = (x.at(value), escape(&text));
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                bottom + 16.0
            );
        }
        let name = escape(self.x_name);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            (LEFT + right) / 2.0,
            bottom + 32.0
        );
    }

    fn legend(&self, svg: &mut String) {
        if self.series.len() < 2 {
            return;
        }
        let each = (WIDTH - LEFT - RIGHT) / self.series.len() as f64;
        for (at, series) in self.series.iter().enumerate() {
            let (class, left, top) = (at % CLASSES, LEFT + each * at as f64, HEIGHT - 10.0);
            let name = escape(&series.name);
            let _ = writeln!(
                svg,
                "<line class=\"line s{class}\" x1=\"{left:.1}\" x2=\"{:.1}\" y1=\"{top}\" y2=\"{top}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
                left + 18.0,
                left + 23.0,
                top + 4.0
            );
        }
    }
}

fn line(svg: &mut String, series: &Series, at: usize, (x, y): (&Axis, &Axis), text: fn(f64) -> String) {
    let class = at % CLASSES;
    let drawn: Vec<String> =
        series.points.iter().map(|(px, py)| format!("{:.1},{:.1}", x.at(*px), y.at(*py))).collect();
    let _ = writeln!(svg, "<polyline class=\"line s{class}\" points=\"{}\"/>", drawn.join(" "));
    for (px, py) in &series.points {
        let _ = write!(
            svg,
            "<circle class=\"dot s{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>{} {}</title></circle>",
            x.at(*px),
            y.at(*py),
            escape(&series.name),
            escape(&text(*py))
        );
    }
    svg.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_within() {
        let linear = Axis::new(Scale::Linear, [0.0, 47.0].into_iter(), None, (0.0, 100.0));
        assert_eq!(linear.marks(), [0.0, 10.0, 20.0, 30.0, 40.0]);
        let log = Axis::new(Scale::Log, [90.0, 2_100.0].into_iter(), None, (0.0, 100.0));
        assert_eq!(log.marks(), [100.0, 200.0, 500.0, 1_000.0, 2_000.0]);
        let narrow = Axis::new(Scale::Log, [2_100.0, 4_900.0].into_iter(), None, (0.0, 100.0));
        assert_eq!(narrow.marks(), [2_100.0, 4_900.0]);
    }

    #[test]
    fn values_keep_their_order_and_their_place() {
        let axis = Axis::new(Scale::Log, [1.0, 100.0].into_iter(), None, (200.0, 0.0));
        assert_eq!([axis.at(1.0), axis.at(10.0), axis.at(100.0)], [200.0, 100.0, 0.0]);
        // Nothing, one point, and what has no logarithm are drawn all the same.
        for values in [vec![], vec![5.0], vec![0.0, 3.0], vec![f64::NAN]] {
            let axis = Axis::new(Scale::Log, values.into_iter(), None, (0.0, 100.0));
            assert!(axis.at(0.0).is_finite() && axis.at(7.0).is_finite() && !axis.marks().is_empty());
        }
    }

    #[test]
    fn a_plot_has_its_lines_points_and_words() {
        let plot = Plot {
            title: "a < b",
            x_name: "n",
            x_scale: Scale::Linear,
            x_marks: Vec::new(),
            y_scale: Scale::Linear,
            y_range: Some((0.0, 100.0)),
            y_text: super::super::words::round,
            series: ["one", "two"]
                .map(|name| Series { name: name.into(), points: vec![(0.0, 0.0), (1.0, 50.0), (2.0, 100.0)] })
                .into(),
        };
        let svg = plot.svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("<circle").count(), 6);
        assert!(svg.contains("aria-label=\"a &lt; b\"") && svg.contains(">two</text>"), "{svg}");
        // 0, the middle, and the top of the plot.
        assert!(svg.contains("points=\"62.0,242.0 344.0,128.0 626.0,14.0\""), "{svg}");
    }
}
