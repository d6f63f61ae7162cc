//! An unpickler that knows tensors and nothing else. A pickle is a program: in Python it may call any function. Here the
//! machine has the values of the language (numbers, text, tuples, lists, dicts) and exactly the names that a
//! `state_dict` needs, each of which builds plain data; every other name is an error, so there is nothing to run.
//!
//! Opcodes are those of Python's `pickle` in protocols 2 to 4, as `torch.save` writes them (`Lib/pickletools.py` in
//! Python's sources is the reference). Values lie in arenas and refer to each other by index: shared and cyclic
//! structures cost nothing, and nothing recurses. What lies in the arenas, on the stack and in the memo is taken off the
//! file's budget, so memory is a small multiple of the file's length, whatever the pickle says.

use std::collections::HashMap;

use super::elements::{Budget, Element};
use crate::error::{Error, Kind, Result};

/// Most axes a tensor may have.
const MAX_RANK: usize = 16;

/// A value. Containers are indices into the [`Object`] they belong to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A larger integer: its bytes, little-endian two's complement.
    Long(&'a [u8]),
    /// A float.
    Float(f64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// See [`Object::tuple`].
    Tuple(usize),
    /// See [`Object::list`].
    List(usize),
    /// See [`Object::dict`].
    Dict(usize),
    /// A name that may be called.
    Callable(Callable),
    /// The class of a storage.
    StorageType(Scalar),
    /// See [`Object::storages`].
    Storage(usize),
    /// See [`Object::tensor`].
    Tensor(usize),
}

/// What a storage holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    /// Floats.
    Float(Element),
    /// Integers or truth values of so many bytes, which are of no interest.
    Integer(usize),
}

impl Scalar {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::Float(element) => element.size(),
            Self::Integer(size) => size,
        }
    }
}

/// The names that may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Callable {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`.
    RebuildParameter,
    /// `torch.Size`.
    Size,
}

/// Elements in a file, named by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Storage<'a> {
    /// Its name in the file.
    pub key: &'a str,
    /// The type of its elements.
    pub scalar: Scalar,
    /// Where it begins in the storage called `key`, in elements: old files have views of storages.
    pub offset: usize,
}

/// A tensor: a strided view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorRef {
    /// The index of its storage.
    pub storage: usize,
    /// Its first element in the storage.
    pub offset: usize,
    /// Its extents.
    pub shape: Vec<usize>,
    /// Elements from one index to the next, an axis each.
    pub strides: Vec<usize>,
}

/// What a pickle holds.
#[derive(Debug)]
pub(super) struct Object<'a> {
    /// The value itself.
    pub root: Value<'a>,
    /// The storages that tensors lie in.
    pub storages: Vec<Storage<'a>>,
    tuples: Vec<Vec<Value<'a>>>,
    lists: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    tensors: Vec<TensorRef>,
}

impl<'a> Object<'a> {
    /// The elements of a tuple.
    pub fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::Tuple(i) => self.tuples.get(i).map(Vec::as_slice),
            _ => None,
        }
    }

    /// The elements of a list.
    pub fn list(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::List(i) => self.lists.get(i).map(Vec::as_slice),
            _ => None,
        }
    }

    /// Keys and values of a dict, in the order they were set.
    pub fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match value {
            Value::Dict(i) => self.dicts.get(i).map(Vec::as_slice),
            _ => None,
        }
    }

    /// A tensor.
    pub fn tensor(&self, value: Value<'a>) -> Option<&TensorRef> {
        match value {
            Value::Tensor(i) => self.tensors.get(i),
            _ => None,
        }
    }
}

/// Runs the pickle at the beginning of `bytes`. Returns what it holds, and how many bytes it took.
///
/// # Errors
/// [`Kind::Weights`] if it is damaged, names anything but tensors, or holds more than the budget has left.
pub(super) fn load<'a>(bytes: &'a [u8], budget: &mut Budget) -> Result<(Object<'a>, usize)> {
    // The first tuple is the empty one, which all share.
    let tuples = vec![vec![]];
    let object = Object { root: Value::None, storages: vec![], tuples, lists: vec![], dicts: vec![], tensors: vec![] };
    let mut machine =
        Machine { input: bytes, at: 0, stack: vec![], highest: 0, marks: vec![], memo: HashMap::new(), object, budget };
    machine.run()?;
    Ok((machine.object, machine.at))
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Weights, format!("the pickle in this PyTorch file is damaged: {what}"))
        .next("check that the file is complete; get it from its source again")
}

/// What is said of a name that is not a tensor's.
fn refuse(module: &str, name: &str) -> Error {
    let short = |text: &str| text.chars().take(80).filter(|c| !c.is_control()).collect::<String>();
    let (module, name) = (short(module), short(name));
    Error::new(
        Kind::Weights,
        format!("this PyTorch file needs {module}.{name}, which is code or not a tensor, and no code is run from it"),
    )
    .next("save the weights alone, in PyTorch: torch.save(model.state_dict(), 'weights.pth')")
}

/// What a name stands for.
fn global<'a>(module: &str, name: &str) -> Result<Value<'a>> {
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Value::Callable(Callable::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Value::Callable(Callable::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Value::Callable(Callable::RebuildParameter),
        ("torch", "Size") => Value::Callable(Callable::Size),
        ("torch", kind) => Value::StorageType(match kind {
            "HalfStorage" => Scalar::Float(Element::F16),
            "BFloat16Storage" => Scalar::Float(Element::Bf16),
            "FloatStorage" => Scalar::Float(Element::F32),
            "DoubleStorage" => Scalar::Float(Element::F64),
            "LongStorage" => Scalar::Integer(8),
            "IntStorage" => Scalar::Integer(4),
            "ShortStorage" => Scalar::Integer(2),
            "CharStorage" | "ByteStorage" | "BoolStorage" => Scalar::Integer(1),
            _ => return Err(refuse(module, name)),
        }),
        _ => return Err(refuse(module, name)),
    })
}

struct Machine<'a, 'b> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// How high the stack was at most: its memory is paid once.
    highest: usize,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    object: Object<'a>,
    budget: &'b mut Budget,
}

/// Bytes of a value.
const SLOT: usize = size_of::<Value<'_>>();
/// Bytes of a container without its values: its vector, and what the allocator keeps of it.
const CONTAINER: usize = 2 * size_of::<Vec<Value<'_>>>();

impl<'a> Machine<'a, '_> {
    fn push(&mut self, value: Value<'a>) -> Result<()> {
        if self.stack.len() == self.highest {
            self.budget.take(Some(1), SLOT)?;
            self.highest += 1;
        }
        self.stack.push(value);
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        self.budget.take(Some(1), size_of::<usize>())?;
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.input.len());
        let end = end.ok_or_else(|| damaged("it ends too early"))?;
        let bytes = &self.input[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A length of eight bytes; one that does not fit the host ends too early anyway.
    fn length(&mut self) -> Result<usize> {
        Ok(usize::try_from(u64::from_le_bytes(self.array()?)).unwrap_or(usize::MAX))
    }

    fn text(&mut self, bytes: usize) -> Result<Value<'a>> {
        let bytes = self.take(bytes)?;
        std::str::from_utf8(bytes).map(Value::Text).map_err(|_| damaged("a text is not UTF-8"))
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.input[self.at..];
        let length = rest.iter().position(|&b| b == b'\n').ok_or_else(|| damaged("it ends too early"))?;
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| damaged("a name is not UTF-8"))
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(damaged("it takes a value that is not there"));
        }
        self.stack.pop().ok_or_else(|| damaged("it takes a value that is not there"))
    }

    fn top(&self) -> Result<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack
            .get(floor..)
            .and_then(<[_]>::last)
            .copied()
            .ok_or_else(|| damaged("it uses a value that is not there"))
    }

    /// Everything above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or_else(|| damaged("it takes back to a mark that is not there"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn push_tuple(&mut self, values: Vec<Value<'a>>) -> Result<()> {
        if values.is_empty() {
            return self.push(Value::Tuple(0));
        }
        self.budget.take(Some(CONTAINER + values.len() * SLOT), 1)?;
        self.object.tuples.push(values);
        self.push(Value::Tuple(self.object.tuples.len() - 1))
    }

    fn push_list(&mut self) -> Result<()> {
        self.budget.take(Some(1), CONTAINER)?;
        self.object.lists.push(vec![]);
        self.push(Value::List(self.object.lists.len() - 1))
    }

    fn new_dict(&mut self) -> Result<Value<'a>> {
        self.budget.take(Some(1), CONTAINER)?;
        self.object.dicts.push(vec![]);
        Ok(Value::Dict(self.object.dicts.len() - 1))
    }

    /// The last `count` values as a tuple.
    fn tuple_of(&mut self, count: usize) -> Result<()> {
        let mut values = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        values.reverse();
        self.push_tuple(values)
    }

    fn memorise(&mut self, index: u32) -> Result<()> {
        let value = self.top()?;
        if self.memo.insert(index, value).is_none() {
            self.budget.take(Some(1), 2 * SLOT)?;
        }
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<()> {
        let value = self.memo.get(&index).ok_or_else(|| damaged("it recalls a value that is not there"))?;
        self.push(*value)
    }

    /// Runs to the end of the pickle.
    fn run(&mut self) -> Result<()> {
        loop {
            let opcode = self.byte()?;
            match opcode {
                b'.' => {
                    self.object.root = self.pop()?;
                    return Ok(());
                }
                0x80 => match self.byte()? {
                    0..=5 => {}
                    version => return Err(damaged(format!("it has protocol {version}"))),
                },
                // A frame is only a hint for reading.
                0x95 => {
                    self.take(8)?;
                }
                b'(' => self.mark()?,
                b'0' => {
                    self.pop()?;
                }
                b'1' => {
                    self.pop_mark()?;
                }
                b'2' => {
                    let top = self.top()?;
                    self.push(top)?;
                }
                b'q' => {
                    let index = self.byte()?.into();
                    self.memorise(index)?;
                }
                b'r' => {
                    let index = self.u32()?;
                    self.memorise(index)?;
                }
                0x94 => self.memorise(self.memo.len() as u32)?,
                b'h' => {
                    let index = self.byte()?.into();
                    self.recall(index)?;
                }
                b'j' => {
                    let index = self.u32()?;
                    self.recall(index)?;
                }
                b'}' | b']' | b')' | b't' | b'l' | b'd' | 0x85..=0x87 | b'a' | b'e' | b's' | b'u' => {
                    self.container(opcode)?;
                }
                b'c' | 0x93 | b'Q' | b'R' | 0x81 | b'b' => self.object(opcode)?,
                _ => {
                    let value = self.scalar(opcode)?;
                    self.push(value)?;
                }
            }
        }
    }

    /// Opcodes of plain values.
    fn scalar(&mut self, opcode: u8) -> Result<Value<'a>> {
        Ok(match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            0x8a => {
                let length = self.byte()?.into();
                long(self.take(length)?)
            }
            0x8b => {
                let length = self.u32()? as usize;
                long(self.take(length)?)
            }
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            0x8c | b'U' => {
                let length = self.byte()?.into();
                self.text(length)?
            }
            b'X' | b'T' => {
                let length = self.u32()? as usize;
                self.text(length)?
            }
            0x8d => {
                let length = self.length()?;
                self.text(length)?
            }
            b'C' => {
                let length = self.byte()?.into();
                Value::Bytes(self.take(length)?)
            }
            b'B' => {
                let length = self.u32()? as usize;
                Value::Bytes(self.take(length)?)
            }
            0x8e => {
                let length = self.length()?;
                Value::Bytes(self.take(length)?)
            }
            _ => return Err(damaged(format!("there is no instruction {opcode:#04x} for weights, at {}", self.at - 1))),
        })
    }

    /// Opcodes of tuples, lists and dicts.
    fn container(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b'}' => {
                let dict = self.new_dict()?;
                self.push(dict)?;
            }
            b']' => self.push_list()?,
            b')' => self.push_tuple(vec![])?,
            b't' => {
                let values = self.pop_mark()?;
                self.push_tuple(values)?;
            }
            b'l' => {
                let values = self.pop_mark()?;
                self.push_list()?;
                self.append(values)?;
            }
            b'd' => {
                let values = self.pop_mark()?;
                let dict = self.new_dict()?;
                self.push(dict)?;
                self.set_items(&values)?;
            }
            b'a' => {
                let value = self.pop()?;
                self.append(vec![value])?;
            }
            b'e' => {
                let values = self.pop_mark()?;
                self.append(values)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let values = self.pop_mark()?;
                self.set_items(&values)?;
            }
            // 0x85 to 0x87: tuples of one, two and three.
            _ => self.tuple_of((opcode - 0x84).into())?,
        }
        Ok(())
    }

    /// Appends to the list on top of the stack.
    fn append(&mut self, mut values: Vec<Value<'a>>) -> Result<()> {
        self.budget.take(Some(values.len()), SLOT)?;
        let list = match self.top()? {
            Value::List(i) => self.object.lists.get_mut(i),
            _ => None,
        };
        list.ok_or_else(|| damaged("it appends to something that is not a list"))?.append(&mut values);
        Ok(())
    }

    /// Sets keys and values, which take turns, in the dict on top of the stack.
    fn set_items(&mut self, values: &[Value<'a>]) -> Result<()> {
        self.budget.take(Some(values.len()), SLOT)?;
        let dict = match self.top()? {
            Value::Dict(i) => self.object.dicts.get_mut(i),
            _ => None,
        };
        let dict = dict.ok_or_else(|| damaged("it sets an item of something that is not a dict"))?;
        let (pairs, rest) = values.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(damaged("a key has no value"));
        }
        dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    /// Opcodes that in Python reach for code.
    fn object(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(global(module, name)?)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err(damaged("a name is not a text"));
                };
                self.push(global(module, name)?)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage)?;
            }
            b'b' => {
                // Attributes of a dict: `_metadata` of a state_dict, which says nothing about tensors.
                self.pop()?;
                if !matches!(self.top()?, Value::Dict(_)) {
                    return Err(damaged("it sets attributes of something that is not a dict"));
                }
            }
            _ => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let value = self.call(callable, arguments)?;
                self.push(value)?;
            }
        }
        Ok(())
    }

    fn call(&mut self, callable: Value<'a>, arguments: Value<'a>) -> Result<Value<'a>> {
        let Value::Callable(callable) = callable else {
            return Err(damaged("it calls something that is not a function"));
        };
        let arguments = self.object.tuple(arguments).ok_or_else(|| damaged("the arguments are not a tuple"))?;
        match (callable, arguments) {
            (Callable::OrderedDict, []) => self.new_dict(),
            // Python 2 writes the items as a list of pairs.
            (Callable::OrderedDict, &[items]) => self.ordered_dict(items),
            (Callable::RebuildParameter, &[data @ Value::Tensor(_), ..]) => Ok(data),
            (Callable::RebuildTensor, &[Value::Storage(storage), Value::Int(offset), shape, strides, ..]) => {
                let tensor = TensorRef {
                    storage,
                    offset: usize::try_from(offset).map_err(|_| damaged("an offset is negative"))?,
                    shape: self.extents(shape)?,
                    strides: self.extents(strides)?,
                };
                if tensor.shape.len() != tensor.strides.len() {
                    return Err(damaged("a tensor's shape and strides do not go together"));
                }
                self.budget.take(Some(size_of::<TensorRef>() + 2 * tensor.shape.len() * size_of::<usize>()), 1)?;
                self.object.tensors.push(tensor);
                Ok(Value::Tensor(self.object.tensors.len() - 1))
            }
            (Callable::Size, &[extents @ Value::Tuple(_)]) => Ok(extents),
            _ => Err(damaged(format!("the arguments of {callable:?} are wrong"))),
        }
    }

    fn ordered_dict(&mut self, items: Value<'a>) -> Result<Value<'a>> {
        let wrong = || damaged("the items of a dict are not pairs");
        let items = self.object.list(items).ok_or_else(wrong)?;
        // One list may be copied again and again.
        self.budget.take(Some(CONTAINER + 2 * items.len() * SLOT), 1)?;
        let pair = |&item: &Value<'a>| match self.object.tuple(item).or_else(|| self.object.list(item)) {
            Some(&[key, value]) => Ok((key, value)),
            _ => Err(wrong()),
        };
        let pairs = items.iter().map(pair).collect::<Result<Vec<_>>>()?;
        self.object.dicts.push(pairs);
        Ok(Value::Dict(self.object.dicts.len() - 1))
    }

    /// Extents or strides.
    fn extents(&self, value: Value<'a>) -> Result<Vec<usize>> {
        let values = self.object.tuple(value).or_else(|| self.object.list(value));
        let values = values.filter(|v| v.len() <= MAX_RANK).ok_or_else(|| damaged("a shape is not a short tuple"))?;
        let extent = |value: &Value<'a>| match value {
            Value::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        };
        let extents = values.iter().map(extent).collect::<Option<Vec<_>>>();
        extents.ok_or_else(|| damaged("an extent is not a number, or is negative"))
    }

    /// A storage by its persistent id: `('storage', type, key, device, count[, view])`, where a view of old files is
    /// `None` or `(key, offset, count)`.
    fn storage(&mut self, id: Value<'a>) -> Result<Value<'a>> {
        let wrong = || damaged("a storage's description is wrong");
        let id = self.object.tuple(id).ok_or_else(wrong)?;
        let &[Value::Text(what), kind, Value::Text(key), Value::Text(_), Value::Int(_), ..] = id else {
            return match id.first() {
                Some(Value::Text("module")) => Err(refuse("torch.nn", "Module")),
                _ => Err(wrong()),
            };
        };
        let (Value::StorageType(scalar), "storage") = (kind, what) else { return Err(wrong()) };
        let offset = match id.get(5).map(|&view| self.object.tuple(view)) {
            Some(Some(&[_, Value::Int(offset), Value::Int(_)])) => offset,
            Some(Some(_)) => return Err(wrong()),
            None | Some(None) => 0,
        };
        let offset = usize::try_from(offset).map_err(|_| wrong())?;
        self.budget.take(Some(1), size_of::<Storage<'_>>())?;
        self.object.storages.push(Storage { key, scalar, offset });
        Ok(Value::Storage(self.object.storages.len() - 1))
    }
}

/// An integer from its bytes, little-endian two's complement.
fn long(bytes: &[u8]) -> Value<'_> {
    if bytes.len() > 8 {
        return Value::Long(bytes);
    }
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut wide = if negative { [0xff; 8] } else { [0; 8] };
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}
