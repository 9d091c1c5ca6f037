//! CEL: no expression makes the compiler or the evaluator panic, and costs stay within the budget.
#![no_main]
use cel::{Budget, Env, Type, Variables};
libfuzzer_sys::fuzz_target!(|text: &str| {
    let env = Env::new().variable("self", Type::Dyn).variable("i", Type::Int);
    let Ok(program) = env.compile(text) else { return };
    let object = serde_json::json!({"a": {"b": [1, 2, 3]}, "s": "text", "m": {"k": "v"}});
    std::hint::black_box(program.estimated_cost(&|_: &[String]| None));
    let mut variables = Variables::new();
    variables.json("self", &object);
    let one = serde_json::json!(1);
    variables.json("i", &one);
    let mut budget = Budget::new(100_000);
    drop(program.eval(&variables, &mut budget).map(drop));
});
