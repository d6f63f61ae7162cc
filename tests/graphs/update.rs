//! What comes behind the backward pass: what optimizers do, with all that belongs to it.

use lesion_gpu::ops::{Case, CaseInput, Draw, Fill, Role};
use lesion_gpu::tensor::TensorType;

use crate::graph::{Kind, Operand, Step};
use crate::make::Maker;

/// A parameter: its leaf, its shape, and what is taken for its gradient.
type Trained = (usize, Vec<usize>, Operand);

impl Maker {
    /// Appends updates of the parameters that have gradients.
    pub fn update(&mut self) {
        let Ok(traced) = self.graph.trace() else { return };
        let leaves = self.graph.leaves.iter().enumerate();
        let is_f32 = |leaf: usize| traced.gradients[leaf].is_some_and(|g| !traced.tape.ty(g).is_half());
        let trained = leaves.filter(|(leaf, l)| is_f32(*leaf) && !l.input.ty.is_half());
        let mut trained: Vec<Trained> =
            trained.map(|(i, l)| (i, l.input.ty.shape.dims().to_vec(), Operand::Gradient(i))).collect();
        if trained.is_empty() || self.draw.one_in(4) {
            return;
        }
        // A batch in parts: gradients are added to totals, from which the optimizer starts.
        let parts = self.draw.one_in(4);
        if parts {
            let template = self.draw.word();
            for (_, shape, gradient) in &mut trained {
                let adds = |case: &Case| case.inputs.len() == 2;
                let Some(case) = self.template("accumulate", template, shape, &adds) else { return };
                let total = self.leaf(case.inputs[0].clone(), Kind::State);
                self.append(case, vec![total, *gradient], vec![]);
                *gradient = total;
            }
            if self.draw.one_in(4) {
                return;
            }
        }
        let first = self.graph.updates.len();
        self.optimize(&trained);
        if parts {
            let (template, watched) = (self.draw.word(), self.draw.one_in(4));
            for (_, shape, total) in &trained {
                let clears = |case: &Case| case.inputs.len() == 1;
                let Some(case) = self.template("accumulate", template, shape, &clears) else { return };
                self.append(case, vec![*total], vec![]);
                if watched {
                    self.average(template, *total, shape);
                }
            }
            self.graph.updates[first..].iter_mut().for_each(|step| step.closing = true);
        }
    }

    fn optimize(&mut self, trained: &[Trained]) {
        let (template, average) = (self.draw.word(), self.draw.word());
        let (op, inputs) = self.draw.of(&[("sgd", 5), ("adam", 7)]);
        let unscale = match self.draw.below(3) {
            0 => None,
            1 => self.factor(trained, ("clip_norm", "squares", "factor")),
            _ => self.factor(trained, ("loss_scale", "check", "decide")),
        };
        let inputs = inputs + usize::from(unscale.is_some());
        // Averages right behind their parameters, behind all, or none.
        let averages = self.draw.below(3);
        let mut shared: Vec<(CaseInput, Operand)> = vec![];
        for (leaf, shape, gradient) in trained {
            let fits = |case: &Case| case.inputs.len() == inputs && case.inputs[0].ty == TensorType::f32(shape.clone());
            let Some(case) = self.template(op, template, shape, &fits) else { continue };
            let mut operands = vec![Operand::Leaf(*leaf), *gradient];
            for (i, input) in case.inputs.iter().enumerate().skip(2) {
                // All raise one flag.
                let flag = input.ty == TensorType::u32([1]);
                operands.push(match (unscale, shared.iter().find(|(have, _)| have == input)) {
                    (Some(unscale), _) if i + 1 == inputs => unscale,
                    _ if input.role == Role::Updated && !flag => self.leaf(input.clone(), Kind::State),
                    (_, Some((_, operand))) => *operand,
                    (_, None) => {
                        let operand = self.leaf(input.clone(), if flag { Kind::State } else { Kind::Input });
                        shared.push((input.clone(), operand));
                        operand
                    }
                });
            }
            self.append(case, operands, vec![]);
            if averages == 0 {
                self.average(average, Operand::Leaf(*leaf), shape);
            }
        }
        if averages == 1 {
            trained.iter().for_each(|(leaf, shape, _)| self.average(average, Operand::Leaf(*leaf), shape));
        }
        if let Some(clock) = self.clock
            && let Some(case) = self.template("sgd", template, &[1], &|case| case.inputs.len() == 1)
        {
            self.append(case, vec![Operand::Leaf(clock)], vec![]);
        }
    }

    fn average(&mut self, template: u32, of: Operand, shape: &[usize]) {
        let Some(case) = self.template("ema", template, shape, &|_| true) else { return };
        let average = self.leaf(case.inputs[0].clone(), Kind::State);
        self.append(case, vec![average, of], vec![]);
    }

    fn append(&mut self, case: Case, operands: Vec<Operand>, makes: Vec<usize>) {
        self.graph.updates.push(Step { case, operands, makes, closing: false });
    }

    /// A case of an update that fits, with the same parameters for the same template.
    fn template(&self, op: &str, template: u32, shape: &[usize], fits: &dyn Fn(&Case) -> bool) -> Option<Case> {
        let subject = self.subjects.iter().find(|subject| subject.op == op)?;
        (0..64).find_map(|i| {
            (subject.random)(&mut Draw::new(template.wrapping_add(i), "update"), shape).filter(|case| fits(case))
        })
    }

    /// What the gradients decide about all together: each is added to a state, from which the optimizer's factor comes.
    fn factor(&mut self, trained: &[Trained], (op, each, all): (&str, &str, &str)) -> Option<Operand> {
        let template = self.draw.word();
        let one = |case: &Case| case.name.contains(all) && (all == "decide" || case.inputs.len() == 1);
        let last = self.template(op, template, &[1], &one)?;
        let mut state = last.inputs[0].clone();
        if let Fill::Constant(up) = &mut state.fill {
            *up = if self.draw.one_in(4) { 1.0 } else { 0.0 };
        }
        let state = self.leaf(state, Kind::State);
        for (_, shape, gradient) in trained {
            let case = self.template(op, template, shape, &|case| case.name.contains(each))?;
            self.append(case, vec![state, *gradient], vec![]);
        }
        let mut operands = vec![state];
        for input in &last.inputs[1..] {
            operands.push(self.leaf(input.clone(), Kind::State));
        }
        let value = self.graph.values.len();
        self.graph.values.push(TensorType::f32([1]));
        self.append(last, operands, vec![value]);
        Some(Operand::Value(value))
    }
}
