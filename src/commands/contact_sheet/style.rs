//! Shared style of contact sheets: sizes in pixels, and colours.
use noto_sans_mono_bitmap::{FontWeight, RasterHeight};

use super::canvas::{Colour, TextStyle};

/// Margin around the whole sheet.
pub(in crate::commands) const MARGIN: usize = 40;
/// Gap between the query and its results.
pub(in crate::commands) const APART: usize = 26;
/// Padding inside a panel.
pub(in crate::commands) const INSIDE: usize = 16;
/// Gap between two images in a panel.
pub(in crate::commands) const BETWEEN: usize = 12;
/// Gap between two rows.
pub(in crate::commands) const ROW_GAP: usize = 22;
/// Gap between an image and its caption.
pub(in crate::commands) const CAPTION_GAP: usize = 6;
/// Width of the border around a query.
pub(in crate::commands) const BORDER: usize = 3;

pub(in crate::commands) const PAPER: Colour = [250, 249, 246];
pub(in crate::commands) const INK: Colour = [38, 40, 43];
pub(in crate::commands) const QUIET: Colour = [112, 114, 117];
pub(in crate::commands) const ACCENT: Colour = [196, 128, 48];
/// Background of the results of a head.
pub(in crate::commands) const PANEL: Colour = [222, 234, 231];

pub(in crate::commands) const TITLE: TextStyle =
    TextStyle { size: RasterHeight::Size24, weight: FontWeight::Bold, colour: INK };
pub(in crate::commands) const NOTE: TextStyle =
    TextStyle { size: RasterHeight::Size16, weight: FontWeight::Regular, colour: QUIET };
