//! Parts of the screen that know nothing of pages and of the console's state.

pub(crate) mod ascii;
pub(crate) mod border;
pub(crate) mod chart;
pub(crate) mod gauge;
pub(crate) mod link;
pub(crate) mod table;
pub(crate) mod text;
