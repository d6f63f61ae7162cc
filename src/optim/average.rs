//! Exponential moving averages of weights: each averaged variable has a companion, which moves towards it after every
//! step of the optimizer.

use super::SCOPE;
use crate::autograd::Tape;
use crate::error::{Error, Kind, Result};
use crate::ops::ema;

/// The name of the variable that holds the average of the variable `name`.
pub fn average_of(name: &str) -> String {
    format!("average.{name}")
}

/// Appends, behind the updates of the optimizer, a move of the average of each of these variables of the tape.
///
/// # Errors
/// [`Kind::Internal`] if the tape has no variable of that name; [`Kind::Shape`] for a variable that is not f32 or a decay
/// that is not in `[0, 1)`.
pub fn append_averages(tape: &mut Tape, names: &[&str], decay: f64) -> Result<()> {
    let outer = tape.set_scope(SCOPE);
    for name in names {
        let variable = tape
            .find_variable(name)
            .ok_or_else(|| Error::new(Kind::Internal, format!("there is no variable '{name}' to average")))?;
        let average = tape.variable(&average_of(name), tape.ty(variable).clone(), false)?;
        ema::ema(tape, average, variable, decay)?;
    }
    tape.set_scope(outer);
    Ok(())
}
