//! A model for callers that come from many threads at once, as those of the bindings do.

use std::sync::{Arc, Mutex, PoisonError};

use daq_kernels::Pool;

use crate::session::{Model, Session};

/// As many sessions of a [`Model`] as there are callers at a time, on one shared pool of threads.
pub struct Sessions {
    model: Model,
    pool: Arc<Pool>,
    idle: Mutex<Vec<Session>>,
}

impl Sessions {
    /// Holds one session; `threads` (1 or more) share the work of a run, the caller's included.
    pub fn new(model: Model, threads: usize) -> Sessions {
        let pool = Arc::new(Pool::new(threads.max(1)));
        let first = model.session_on(pool.clone());
        Sessions { model, pool, idle: Mutex::new(vec![first]) }
    }

    /// The model that they run.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Calls `run` with a session that nobody else uses meanwhile, made where none is idle. A
    /// session that saw a panic is not used again.
    pub fn with<R>(&self, run: impl FnOnce(&mut Session) -> R) -> R {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let found = idle().pop();
        let mut session = found.unwrap_or_else(|| self.model.session_on(self.pool.clone()));
        let result = run(&mut session);
        idle().push(session);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::ops::{Attrs, Op};
    use crate::{DType, Graph, Node, Value};

    /// `y = max(x, 0)`.
    fn relu() -> Model {
        let mut g = Graph::default();
        let x = g.add_value(Value::new("x", DType::F32, &[1, 3]));
        let y = g.add_value(Value::new("y", DType::F32, &[1, 3]));
        let op = Op::from_attrs("Relu", &Attrs::new()).unwrap().unwrap();
        let doc = String::new();
        g.nodes.push(Node {
            name: "relu".into(),
            op,
            inputs: vec![Some(x)],
            outputs: vec![y],
            doc,
        });
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        Model::from_graph(g).unwrap()
    }

    #[test]
    fn many_threads_share_a_model() {
        let sessions = Sessions::new(relu(), 2);
        let caller = |i: i32| {
            for _ in 0..100 {
                let (x, mut y) = ([-1.0, i as f32, 0.5], [0f32; 3]);
                sessions.with(|s| s.predict(&[&x], &mut [&mut y])).unwrap();
                assert_eq!(y, [0.0, i as f32, 0.5]);
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|i| drop(scope.spawn(move || caller(i)))));
        assert!(sessions.idle.lock().unwrap().len() <= 4);
    }

    #[test]
    fn a_session_that_saw_a_panic_is_dropped() {
        let sessions = Sessions::new(relu(), 1);
        let panics = || sessions.with(|_| panic!("in a run"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert_eq!(sessions.idle.lock().unwrap().len(), 0);
        assert_eq!(sessions.with(|s| s.inputs().len()), 1);
        assert_eq!(sessions.idle.lock().unwrap().len(), 1);
    }
}
