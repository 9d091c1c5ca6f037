//! The Common Expression Language as Kubernetes v1.36 speaks it: all libraries upstream enables, its type checker, its cost
//! model, its error texts. Pure: time, authorizers and objects are inputs.
//!
//! ```ignore
//! // Once per rule. An environment has every library; add the variables an expression may use.
//! let widget = ObjectType::new("Widget").field("replicas", Type::Int).field("labels", Type::map(Type::String, Type::String));
//! let env = Env::new().variable("self", Type::object(widget)).variable("oldSelf", Type::Dyn);
//! let program = env.compile("self.replicas < 3 && has(self.labels.app)")?; // CompileError displays "compilation failed: ERROR: <input>:1:6: ..."
//! if *program.output_type() != Type::Bool { /* "must evaluate to bool" is the caller's text */ }
//! let estimate = program.estimated_cost(&|path: &[String]| None);          // path: ["self", "labels", "@keys"] -> most elements or characters
//!
//! // Once per request. Trees are borrowed and read lazily, by the types declared for the variables.
//! let mut variables = Variables::new();
//! variables.json("self", &object);
//! variables.authorizer("authorizer", &authorizer);
//! let mut budget = Budget::new(RUNTIME_BUDGET);                            // shared by all rules of a request
//! match program.eval(&variables, &mut budget) {
//!     Ok(Value::Bool(true)) => {}
//!     Ok(other) => { /* failed */ }
//!     Err(error) => { /* error.to_string(): "no such key: foo"; error.kind tells cost limits apart */ }
//! }
//! ```
//!
//! - A [`Type`] says both what the checker allows and how JSON is read: a JSON string declared as `Timestamp` is one, a list
//!   with [`ListSemantics::Set`] compares without order. `Type::Dyn` reads plain JSON.
//! - Property names are escaped by [`ObjectType::field`] (`foo-bar` is `foo__dash__bar` in expressions); unreachable ones are
//!   left out. Objects are read through their declared fields only.
//! - This crate stands on `machinery` (quantities, names), so what walks a structural schema and its rules stands above both.

mod ast;
mod budget;
mod checker;
mod collections;
mod cost;
mod decls;
mod env;
mod error;
mod eval;
mod ident;
mod json;
mod lexer;
mod library;
mod macros;
mod opaque;
mod parser;
mod plan;
mod regexes;
mod source;
mod time;
mod types;
mod unescape;
mod unify;
mod value;
mod variables;

pub use budget::{Budget, Estimate, MATCH_CONDITIONS_BUDGET, PER_CALL_LIMIT, RUNTIME_BUDGET, SizeEstimator};
pub use env::{Env, Program};
pub use error::{CompileError, ErrorKind, EvalError};
pub use ident::{escape, is_identifier, unescape};
pub use types::{Field, ListSemantics, ListType, MapType, ObjectType, Type};
pub use value::{Key, List, Map, Struct, Text, Value};
pub use variables::{Authorizer, AuthzDecision, AuthzRequest, Prepared, Variables};
