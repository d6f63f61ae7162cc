//! Building a graph.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use prost::Message as _;

use super::proto::{
    AttributeProto, Dimension, FLOAT, GraphProto, INT64, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::error::{Error, Kind, Result};
use crate::tensor::{HostTensor, Shape};

/// The versions of ONNX's operators that graphs can be written for.
pub const OPSETS: RangeInclusive<i64> = 17..=21;

/// Largest file that Protocol Buffers allow.
const LARGEST_FILE: usize = (1 << 31) - 1;

/// The batch of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// Always this many images.
    Fixed(usize),
    /// As many as are given. The graph is traced with one.
    Dynamic,
}

impl Batch {
    /// The batch to trace with.
    pub fn traced(self) -> usize {
        match self {
            Self::Fixed(n) => n,
            Self::Dynamic => 1,
        }
    }
}

/// How a tensor lies in the ONNX graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Order {
    /// As on the tape, channels last, perhaps in another shape.
    Rows,
    /// A map `[N, C, H, W]`.
    ChannelsFirst,
}

/// A value of the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    name: String,
    /// On the tape.
    shape: Shape,
    /// In the ONNX graph.
    stored: Vec<usize>,
    order: Order,
    /// Whether it is a variable of the tape, whose elements are known.
    constant: bool,
}

impl Value {
    /// An input that is left out.
    pub fn none() -> Self {
        Self { name: String::new(), shape: [0].into(), stored: vec![0], order: Order::Rows, constant: false }
    }

    /// The shape on the tape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The same elements in another shape.
    #[must_use]
    pub fn view(&self, shape: impl Into<Shape>) -> Self {
        Self { shape: shape.into(), ..self.clone() }
    }

    /// Whether it is a variable that the tape holds as a matrix, whatever its shape is seen as.
    pub fn is_matrix(&self) -> bool {
        self.constant && self.stored.len() == 2
    }

    /// Whether it lies as a map already, so that [`Graph::map`] costs nothing.
    pub fn is_map(&self) -> bool {
        let Some([n, h, w, c]) = self.shape.nhwc() else { return false };
        self.order == Order::ChannelsFirst && self.stored == [n, c, h, w]
    }
}

/// A constant of an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// An integer.
    Int(&'static str, i64),
    /// Integers.
    Ints(&'static str, Vec<i64>),
    /// A float.
    Float(&'static str, f32),
    /// Text.
    Text(&'static str, &'static str),
    /// A float tensor of one element.
    Scalar(&'static str, f32),
}

impl Attribute {
    /// Extents as an attribute.
    pub fn extents(name: &'static str, values: &[usize]) -> Self {
        Self::Ints(name, values.iter().map(|&v| v as i64).collect())
    }

    fn proto(&self) -> AttributeProto {
        // `AttributeProto.AttributeType`: FLOAT 1, INT 2, STRING 3, TENSOR 4, INTS 7.
        let of = |name: &str, r#type| AttributeProto { name: name.to_owned(), r#type, ..AttributeProto::default() };
        match self {
            Self::Float(name, v) => AttributeProto { f: Some(*v), ..of(name, 1) },
            Self::Int(name, v) => AttributeProto { i: Some(*v), ..of(name, 2) },
            Self::Text(name, v) => AttributeProto { s: Some(v.as_bytes().to_vec()), ..of(name, 3) },
            Self::Scalar(name, v) => {
                let t = float_tensor(String::new(), &[1], &[*v]);
                AttributeProto { t: Some(t), ..of(name, 4) }
            }
            Self::Ints(name, v) => AttributeProto { ints: v.clone(), ..of(name, 7) },
        }
    }
}

fn float_tensor(name: String, dims: &[usize], values: &[f32]) -> TensorProto {
    let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto { dims: dims.iter().map(|&d| d as i64).collect(), data_type: FLOAT, name, raw_data }
}

/// A graph under construction.
#[derive(Debug)]
pub struct Graph {
    opset: i64,
    batch: Batch,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
    /// The variables' elements, laid out as on the tape.
    variables: HashMap<String, HostTensor>,
    /// Conversions that were made: from which value, to which extents, into which order.
    converted: HashMap<(String, Vec<usize>, Order), Value>,
    /// Names in use.
    names: HashSet<String>,
    scope: String,
}

impl Graph {
    /// An empty graph for a version of the operators.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a version that we do not write.
    pub fn new(opset: i64, batch: Batch) -> Result<Self> {
        if !OPSETS.contains(&opset) {
            let message = format!("ONNX operator set {opset} cannot be written");
            let (first, last) = (OPSETS.start(), OPSETS.end());
            return Err(Error::new(Kind::Usage, message).next(format!("choose --opset between {first} and {last}")));
        }
        Ok(Self {
            opset,
            batch,
            nodes: vec![],
            initializers: vec![],
            inputs: vec![],
            outputs: vec![],
            variables: HashMap::new(),
            converted: HashMap::new(),
            names: HashSet::new(),
            scope: String::new(),
        })
    }

    /// The version of the operators.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// Names the layer that the following nodes belong to.
    pub fn set_scope(&mut self, scope: &str) {
        scope.clone_into(&mut self.scope);
    }

    /// A name that nothing else has.
    fn unique(&mut self, name: &str) -> String {
        let mut candidate = name.to_owned();
        let mut number = 1;
        while !self.names.insert(candidate.clone()) {
            number += 1;
            candidate = format!("{name}_{number}");
        }
        candidate
    }

    fn info(&self, name: &str, extents: &[usize]) -> ValueInfoProto {
        let dim = extents.iter().enumerate().map(|(axis, &extent)| match (axis, self.batch) {
            (0, Batch::Dynamic) => Dimension { dim_value: None, dim_param: Some("batch".into()) },
            _ => Dimension { dim_value: Some(extent as i64), dim_param: None },
        });
        let shape = Some(TensorShapeProto { dim: dim.collect() });
        let tensor_type = Some(TensorTypeProto { elem_type: FLOAT, shape });
        ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
    }

    /// Images that the graph is given: `[N, C, H, W]` there, `[N, H, W, C]` on the tape.
    pub fn images(&mut self, name: &str, [n, h, w, c]: [usize; 4]) -> Value {
        let name = self.unique(name);
        self.inputs.push(self.info(&name, &[n, c, h, w]));
        let shape = [n, h, w, c].into();
        Value { name, shape, stored: vec![n, c, h, w], order: Order::ChannelsFirst, constant: false }
    }

    /// A variable of the tape, with its elements.
    pub fn variable(&mut self, name: &str, tensor: HostTensor) -> Value {
        let shape = tensor.shape().clone();
        let stored = shape.dims().to_vec();
        self.variables.insert(name.to_owned(), tensor);
        Value { name: name.to_owned(), shape, stored, order: Order::Rows, constant: true }
    }

    /// A float constant.
    pub fn constant(&mut self, name: &str, tensor: &HostTensor) -> Value {
        let name = self.unique(&format!("{}/{name}", self.scope));
        self.initializers.push(float_tensor(name.clone(), tensor.shape().dims(), tensor.data()));
        let (shape, stored) = (tensor.shape().clone(), tensor.shape().dims().to_vec());
        Value { name, shape, stored, order: Order::Rows, constant: false }
    }

    /// Integers: extents, starts and the like.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> Value {
        let name = self.unique(&format!("{}/{name}", self.scope));
        let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let dims = vec![values.len() as i64];
        self.initializers.push(TensorProto { dims, data_type: INT64, name: name.clone(), raw_data });
        let stored = vec![values.len()];
        Value { name, shape: stored.clone().into(), stored, order: Order::Rows, constant: false }
    }

    /// A variable with its axes in another order and then in another shape: how ONNX wants it.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a value that is computed.
    pub fn laid_out(&mut self, variable: &Value, axes: &[usize], shape: &[usize]) -> Result<Value> {
        let Some(tensor) = self.variables.get(&variable.name).filter(|_| variable.constant) else {
            let message = format!("'{}' is computed, and ONNX wants a constant here", variable.name);
            return Err(Error::new(Kind::Unsupported, message).at(&self.scope));
        };
        let key = (variable.name.clone(), [variable.shape.dims(), axes, shape].concat(), Order::Rows);
        if let Some(done) = self.converted.get(&key) {
            return Ok(done.clone());
        }
        let tensor = HostTensor::new(variable.shape.clone(), tensor.data().to_vec()).permute(axes);
        // The first form a variable is needed in has its name.
        let name = self.unique(&variable.name);
        self.initializers.push(float_tensor(name.clone(), shape, tensor.data()));
        let value = Value { name, shape: shape.into(), stored: shape.to_vec(), order: Order::Rows, constant: false };
        self.converted.insert(key, value.clone());
        Ok(value)
    }

    /// Appends an operation; its output lies as `like` does, in its shape.
    pub fn node_like(&mut self, op: &str, inputs: &[&Value], attributes: &[Attribute], like: &Value) -> Value {
        let name = self.push(op, inputs, attributes);
        Value { name, constant: false, ..like.clone() }
    }

    /// Appends an operation whose output is a map `[N, H, W, C]`, stored with the channels first.
    pub fn map_node(
        &mut self,
        op: &str,
        inputs: &[&Value],
        attributes: &[Attribute],
        [n, h, w, c]: [usize; 4],
    ) -> Value {
        let name = self.push(op, inputs, attributes);
        let (shape, stored) = ([n, h, w, c].into(), vec![n, c, h, w]);
        Value { name, shape, stored, order: Order::ChannelsFirst, constant: false }
    }

    /// Appends an operation whose output lies as on the tape.
    pub fn row_node(
        &mut self,
        op: &str,
        inputs: &[&Value],
        attributes: &[Attribute],
        shape: impl Into<Shape>,
    ) -> Value {
        let name = self.push(op, inputs, attributes);
        let shape = shape.into();
        Value { name, stored: shape.dims().to_vec(), shape, order: Order::Rows, constant: false }
    }

    fn push(&mut self, op: &str, inputs: &[&Value], attributes: &[Attribute]) -> String {
        let name = if self.scope.is_empty() { op.to_owned() } else { format!("{}/{op}", self.scope) };
        let name = self.unique(&name);
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|v| v.name.clone()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: op.to_owned(),
            attribute: attributes.iter().map(Attribute::proto).collect(),
        });
        name
    }

    /// The value as a map, channels first.
    ///
    /// # Errors
    /// [`Kind::Shape`] if it has not four axes.
    pub fn map(&mut self, x: &Value) -> Result<Value> {
        let Some([n, h, w, c]) = x.shape.nhwc() else {
            return Err(Error::new(Kind::Shape, format!("{} is not a map", x.shape)).at(&self.scope));
        };
        if x.is_map() {
            return Ok(x.clone());
        }
        let key = (x.name.clone(), vec![n, h, w, c], Order::ChannelsFirst);
        if let Some(done) = self.converted.get(&key) {
            return Ok(done.clone());
        }
        let value = if h * w == 1 {
            let shape = self.reshaping(&[n, c, 1, 1]);
            self.map_node("Reshape", &[x, &shape], &[], [n, 1, 1, c])
        } else {
            let rows = self.rows(x)?;
            self.map_node("Transpose", &[&rows], &[Attribute::Ints("perm", vec![0, 3, 1, 2])], [n, h, w, c])
        };
        self.converted.insert(key, value.clone());
        Ok(value)
    }

    /// The value as it is on the tape, in its shape.
    ///
    /// # Errors
    /// None for values of this graph.
    pub fn rows(&mut self, x: &Value) -> Result<Value> {
        let extents = x.shape.dims().to_vec();
        if x.constant {
            let axes: Vec<usize> = (0..extents.len()).collect();
            return self.laid_out(x, &axes, &extents);
        }
        if x.order == Order::Rows && x.stored == extents {
            return Ok(x.clone());
        }
        let key = (x.name.clone(), extents.clone(), Order::Rows);
        if let Some(done) = self.converted.get(&key) {
            return Ok(done.clone());
        }
        let value = match (x.order, x.stored.as_slice()) {
            (Order::ChannelsFirst, &[n, c, h, w]) if h * w > 1 => {
                let turned = [n, h, w, c];
                let map = Value { shape: turned.into(), ..x.clone() };
                let rows = self.row_node("Transpose", &[&map], &[Attribute::Ints("perm", vec![0, 2, 3, 1])], turned);
                if extents == turned { rows } else { self.rows(&rows.view(extents))? }
            }
            _ => {
                let shape = self.reshaping(&extents);
                self.row_node("Reshape", &[x, &shape], &[], extents)
            }
        };
        self.converted.insert(key, value.clone());
        Ok(value)
    }

    /// The extents that a reshape is given. The first one holds the batch.
    fn reshaping(&mut self, extents: &[usize]) -> Value {
        let mut extents: Vec<i64> = extents.iter().map(|&e| e as i64).collect();
        if let (Batch::Dynamic, Some(first)) = (self.batch, extents.first_mut()) {
            *first = -1;
        }
        self.integers("shape", &extents)
    }

    /// Values of equal axes, but for the last, that lie alike: as maps if one of them does.
    ///
    /// # Errors
    /// None for values of this graph.
    pub fn alike(&mut self, values: &[Value]) -> Result<(Vec<Value>, bool)> {
        let maps = values.iter().any(Value::is_map);
        let values = values.iter().map(|v| if maps { self.map(v) } else { self.rows(v) });
        Ok((values.collect::<Result<_>>()?, maps))
    }

    /// A tensor of one value, whose first axis is the batch.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if it does not begin with the batch.
    pub fn filled(&mut self, shape: &Shape, value: f32) -> Result<Value> {
        let extents = shape.dims();
        let attributes = [Attribute::Scalar("value", value)];
        let (Batch::Dynamic, Some((&first, rest))) = (self.batch, extents.split_first()) else {
            let extents = extents.iter().map(|&e| e as i64).collect::<Vec<_>>();
            let extents = self.integers("shape", &extents);
            return Ok(self.row_node("ConstantOfShape", &[&extents], &attributes, shape.clone()));
        };
        let Some(images) = self.inputs.first().filter(|_| first == self.batch.traced()) else {
            let message = format!("a constant of {shape} does not follow the batch");
            return Err(Error::new(Kind::Unsupported, message).at(&self.scope).next("use --batch N"));
        };
        let images = Value {
            name: images.name.clone(),
            shape: [first].into(),
            stored: vec![first],
            order: Order::Rows,
            constant: false,
        };
        let batch = self.row_node("Shape", &[&images], &[Attribute::Int("start", 0), Attribute::Int("end", 1)], [1]);
        let rest = self.integers("shape", &rest.iter().map(|&e| e as i64).collect::<Vec<_>>());
        let extents = self.row_node("Concat", &[&batch, &rest], &[Attribute::Int("axis", 0)], [extents.len()]);
        Ok(self.row_node("ConstantOfShape", &[&extents], &attributes, shape.clone()))
    }

    /// Makes a value an output called `name`: a map with the channels first, anything else as on the tape.
    ///
    /// # Errors
    /// [`Kind::Internal`] if no operation makes it.
    pub fn output(&mut self, x: &Value, name: &str) -> Result<()> {
        let value = if x.shape.rank() == 4 { self.map(x)? } else { self.rows(x)? };
        let name = self.unique(name);
        let Some(at) = self.nodes.iter().position(|node| node.output.contains(&value.name)) else {
            return Err(Error::new(Kind::Internal, format!("'{}' is no result of the graph", value.name)));
        };
        for node in &mut self.nodes[at..] {
            let names = node.output.iter_mut().chain(&mut node.input);
            names.filter(|n| **n == value.name).for_each(|n| n.clone_from(&name));
        }
        self.outputs.push(self.info(&name, &value.stored));
        Ok(())
    }

    /// The finished file.
    pub fn finish(self, name: &str, doc: &str, metadata: &[(&str, String)]) -> ModelProto {
        let props =
            metadata.iter().map(|(key, value)| StringStringEntryProto { key: (*key).to_owned(), value: value.clone() });
        ModelProto {
            // The oldest format that goes with the operators.
            ir_version: match self.opset {
                ..=18 => 8,
                19..=20 => 9,
                _ => 10,
            },
            producer_name: env!("CARGO_PKG_NAME").into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            doc_string: doc.to_owned(),
            graph: Some(GraphProto {
                node: self.nodes,
                name: name.to_owned(),
                initializer: self.initializers,
                input: self.inputs,
                output: self.outputs,
            }),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: self.opset }],
            metadata_props: props.collect(),
        }
    }
}

impl ModelProto {
    /// The bytes of the file.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if it would be larger than the format allows.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        if self.encoded_len() > LARGEST_FILE {
            return Err(Error::new(
                Kind::Unsupported,
                "the model is larger than 2 GiB, the most that an ONNX file holds",
            ));
        }
        Ok(self.encode_to_vec())
    }
}
