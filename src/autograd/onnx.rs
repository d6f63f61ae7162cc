//! A tape as an ONNX graph: each operation says what it is there (see [`Op::onnx`](super::Op::onnx)).

use std::collections::HashMap;

use super::fuse::live;
use super::{Origin, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::onnx::{Graph, Value};
use crate::tensor::HostTensor;

impl Tape {
    /// Appends to `graph` what `output` depends on, and returns it there. `given` are the tape's inputs; `variable` knows
    /// the elements of a variable by name, laid out as on the tape.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for an op without an ONNX form, [`Kind::Internal`] for an input that is not given; those of
    /// `variable`.
    pub fn append_onnx(
        &self,
        graph: &mut Graph,
        given: &[(Tensor, Value)],
        output: Tensor,
        variable: &dyn Fn(&str) -> Result<HostTensor>,
    ) -> Result<Value> {
        let mut walk = Walk { tape: self, done: given.iter().cloned().collect(), variable };
        for (node, live) in self.nodes().iter().zip(live(self, &[output])) {
            if live {
                graph.set_scope(&node.scope);
                let inputs = node.inputs.iter().map(|&t| walk.value(graph, t)).collect::<Result<Vec<_>>>()?;
                let first = node.op.onnx(graph, &inputs).map_err(|e| e.at(&node.scope))?;
                walk.done.insert(node.outputs[0], first);
            }
        }
        walk.value(graph, output)
    }
}

struct Walk<'a> {
    tape: &'a Tape,
    done: HashMap<Tensor, Value>,
    variable: &'a dyn Fn(&str) -> Result<HostTensor>,
}

impl Walk<'_> {
    fn value(&mut self, graph: &mut Graph, t: Tensor) -> Result<Value> {
        if let Some(done) = self.done.get(&t) {
            return Ok(done.clone());
        }
        let value = match self.tape.origin(t) {
            Origin::View(of) => self.value(graph, *of)?.view(self.tape.shape(t).clone()),
            Origin::Variable(number) => {
                let name = &self.tape.variables()[*number].name;
                graph.variable(name, (self.variable)(name)?)
            }
            Origin::Input(name) => return Err(Error::new(Kind::Internal, format!("'{name}' is not given"))),
            Origin::Node { .. } => {
                return Err(Error::new(Kind::Unsupported, "a second output of an operation has no ONNX form"));
            }
        };
        self.done.insert(t, value.clone());
        Ok(value)
    }
}
