//! Reverse-mode differentiation: gradient nodes are appended to the same tape.

use std::sync::Arc;

use super::{NodeView, Origin, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::tensor::{DType, Shape};

/// What is done to gradients on their way; brought by the ops, since the tape knows none.
#[derive(Clone, Copy)]
pub struct Arithmetic<'a> {
    /// Adds two gradients of the same value.
    pub add: &'a dyn Fn(&mut Tape, Tensor, Tensor) -> Result<Tensor>,
    /// A gradient in f16.
    pub narrow: &'a dyn Fn(&mut Tape, Tensor) -> Result<Tensor>,
}

/// The gradients of a tape's values.
#[derive(Debug, Clone)]
pub struct Gradients {
    of: Vec<Option<Tensor>>,
}

impl Gradients {
    /// Gradients that are known from elsewhere: pairs of a value and its gradient.
    pub fn given(pairs: &[(Tensor, Tensor)]) -> Self {
        let mut of = vec![None; pairs.iter().map(|(value, _)| value.index() + 1).max().unwrap_or(0)];
        pairs.iter().for_each(|&(value, gradient)| of[value.index()] = Some(gradient));
        Self { of }
    }

    /// The gradient of `t`, if one reached it.
    pub fn get(&self, t: Tensor) -> Option<Tensor> {
        self.of.get(t.index()).copied().flatten()
    }
}

impl Tape {
    /// Appends the nodes that compute gradients, starting from the given gradients of some values.
    ///
    /// A gradient has its value's type; only that of an f16 value may be f32, where a rule has it at that precision. It is
    /// narrowed for the rules of ops that do not take it so (see [`Op::takes_wide_gradients`](super::Op::takes_wide_gradients)).
    /// Where a value is used more than once its gradients are added in the reverse order of use, always the same.
    ///
    /// # Errors
    /// [`Kind::Shape`] if a seed does not have its value's shape; errors of the backward rules.
    pub fn backward(&mut self, seeds: &[(Tensor, Tensor)], arithmetic: Arithmetic<'_>) -> Result<Gradients> {
        let mut of: Vec<Option<Tensor>> = vec![None; self.len()];
        let forward_scope = self.scope().to_owned();
        for &(value, gradient) in seeds {
            if self.shape(value) != self.shape(gradient) {
                let (a, b) = (self.shape(value), self.shape(gradient));
                return Err(Error::new(
                    Kind::Shape,
                    format!("a gradient of shape {b} cannot start at a value of shape {a}"),
                ));
            }
            self.add_gradient(&mut of, value, gradient, arithmetic)?;
        }
        // Values were numbered as they were made, and views after what they view: going down by value number visits
        // every consumer before its producers.
        for index in (0..of.len()).rev() {
            let value = Tensor(index);
            match *self.origin(value) {
                Origin::View(source) => {
                    if let (Some(gradient), true) = (of[index], self.requires_grad(source)) {
                        let shape: Shape = self.shape(source).clone();
                        let gradient = self.view(gradient, shape)?;
                        self.add_gradient(&mut of, source, gradient, arithmetic)?;
                    }
                }
                // A node is handled at its first output: the last to be visited.
                Origin::Node { node, output: 0 } => self.backward_node(&mut of, node, arithmetic)?,
                Origin::Node { .. } | Origin::Variable(_) | Origin::Input(_) => {}
            }
        }
        self.set_scope(forward_scope);
        Ok(Gradients { of })
    }

    fn backward_node(&mut self, of: &mut [Option<Tensor>], node: usize, arithmetic: Arithmetic<'_>) -> Result<()> {
        let n = &self.nodes()[node];
        let view = NodeView {
            inputs: n.inputs.clone(),
            outputs: n.outputs.clone(),
            wanted: n.inputs.iter().map(|&t| self.requires_grad(t)).collect(),
        };
        let d_outputs: Vec<Option<Tensor>> = view.outputs.iter().map(|t| of[t.index()]).collect();
        if d_outputs.iter().all(Option::is_none) || !view.wanted.contains(&true) {
            return Ok(());
        }
        let (scope, op) = (n.scope.clone(), Arc::clone(&n.op));
        self.set_scope(scope);
        let mut d_outputs = d_outputs;
        for (&output, gradient) in view.outputs.iter().zip(&mut d_outputs) {
            if let Some(wide) = *gradient
                && self.ty(wide).dtype != self.ty(output).dtype
                && !op.takes_wide_gradients()
            {
                *gradient = Some((arithmetic.narrow)(self, wide)?);
            }
        }
        let d_inputs = op.backward(self, &view, &d_outputs)?;
        for ((&input, d_input), wanted) in view.inputs.iter().zip(d_inputs).zip(&view.wanted) {
            if let (Some(gradient), true) = (d_input, wanted) {
                self.add_gradient(of, input, gradient, arithmetic)?;
            }
        }
        Ok(())
    }

    fn add_gradient(
        &mut self,
        of: &mut [Option<Tensor>],
        value: Tensor,
        gradient: Tensor,
        arithmetic: Arithmetic<'_>,
    ) -> Result<()> {
        if self.shape(value) != self.shape(gradient) {
            let (a, b) = (self.shape(value), self.shape(gradient));
            return Err(Error::new(
                Kind::Internal,
                format!("a backward rule gave a gradient of {b} for a value of {a}"),
            )
            .at(self.scope()));
        }
        let (have, want) = (self.ty(gradient), self.ty(value));
        if have.dtype != want.dtype && !(want.is_half() && have.dtype == DType::F32) {
            let what = format!("a backward rule gave a gradient of {have} for a value of {want}");
            return Err(Error::new(Kind::Internal, what).at(self.scope()));
        }
        of[value.index()] = Some(match of[value.index()] {
            None => gradient,
            Some(earlier) => (arithmetic.add)(self, earlier, gradient)?,
        });
        Ok(())
    }
}
