//! Rewrites of a float graph that change its nodes but not what it computes.

use daq::{Graph, ValueId};

mod affine;
mod identities;
#[cfg(test)]
mod tests;

pub use affine::fold_affine;
pub use identities::remove_identities;

/// Runs all passes until none finds anything more, and removes what nobody reads.
///
/// Graph inputs and outputs keep their names, types and shapes.
pub fn optimize(graph: &mut Graph) {
    loop {
        // Both, whatever the first one finds.
        let changed = remove_identities(graph) | fold_affine(graph);
        graph.remove_unused();
        if !changed {
            return;
        }
    }
}

/// Lets the node that computes `from` compute `to` in its place, and every reader of `from` read
/// `to`: `to` keeps its name.
fn rename_output(graph: &mut Graph, from: ValueId, to: ValueId) {
    graph.replace_uses(from, to);
    for id in graph.nodes.iter_mut().flat_map(|n| &mut n.outputs).filter(|id| **id == from) {
        *id = to;
    }
}

/// A name that no value has.
pub(crate) fn unique(graph: &Graph, wish: &str) -> String {
    let mut names = (1..).map(|i| if i == 1 { wish.to_string() } else { format!("{wish}_{i}") });
    names.find(|name| graph.find_value(name).is_none()).unwrap_or_default()
}
