//! What contact sheets have in common: measures in pixels, and colours.
use noto_sans_mono_bitmap::{FontWeight, RasterHeight};

use super::canvas::{Colour, TextStyle};

/// Round the whole sheet.
pub(in crate::commands) const MARGIN: usize = 40;
/// Between the query and what was found.
pub(in crate::commands) const APART: usize = 26;
/// From the edge of a panel to its pictures.
pub(in crate::commands) const INSIDE: usize = 16;
/// Between two pictures of a panel.
pub(in crate::commands) const BETWEEN: usize = 12;
/// Between two rows.
pub(in crate::commands) const ROW_GAP: usize = 22;
/// Between a picture and its caption.
pub(in crate::commands) const CAPTION_GAP: usize = 6;
/// Width of the frame round a query.
pub(in crate::commands) const BORDER: usize = 3;

pub(in crate::commands) const PAPER: Colour = [250, 249, 246];
pub(in crate::commands) const INK: Colour = [38, 40, 43];
pub(in crate::commands) const QUIET: Colour = [112, 114, 117];
pub(in crate::commands) const ACCENT: Colour = [196, 128, 48];
/// Under what was found with a head.
pub(in crate::commands) const PANEL: Colour = [222, 234, 231];

pub(in crate::commands) const TITLE: TextStyle =
    TextStyle { size: RasterHeight::Size24, weight: FontWeight::Bold, colour: INK };
pub(in crate::commands) const NOTE: TextStyle =
    TextStyle { size: RasterHeight::Size16, weight: FontWeight::Regular, colour: QUIET };
