//! What the compiler says of wrong expressions, to the letter.

use cel::{Env, ObjectType, Type};

const OPERAND: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

fn env() -> Env {
    let of = ObjectType::new("Thing").field("count", Type::Int).field("name", Type::String);
    Env::new().variable("self", Type::object(of)).variable("authorizer", Type::AUTHORIZER).mutation_types().bindings()
}

#[test]
fn texts() {
    for (expression, issues) in [
        ("self.foo", "ERROR: <input>:1:5: undefined field 'foo'\n | self.foo\n | ....^".to_owned()),
        ("nope", "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope\n | ^".to_owned()),
        ("f(1)", "ERROR: <input>:1:2: undeclared reference to 'f' (in container '')\n | f(1)\n | .^".to_owned()),
        (
            "authorizer.group('x').check('y').allowed()",
            "ERROR: <input>:1:28: found no matching overload for 'check' applied to \
             'kubernetes.authorization.GroupCheck.(string)'\n | authorizer.group('x').check('y').allowed()\n | \
             ...........................^"
                .to_owned(),
        ),
        ("1 +", format!("ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {OPERAND}\n | 1 +\n | ...^")),
        ("", format!("ERROR: <input>:1:0: Syntax error: mismatched input '<EOF>' expecting {OPERAND}")),
        ("Bad Value!", "ERROR: <input>:1:5: Syntax error: mismatched input 'Value' expecting <EOF>\n | Bad Value!\n | ....^".to_owned()),
        ("a b", "ERROR: <input>:1:3: Syntax error: extraneous input 'b' expecting <EOF>\n | a b\n | ..^".to_owned()),
        ("1 + 'a'", "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^".to_owned()),
        (
            "self.count == self.name",
            "ERROR: <input>:1:12: found no matching overload for '_==_' applied to '(int, string)'\n | self.count == self.name\n | \
             ...........^"
                .to_owned(),
        ),
        (
            "1.all(x, true)",
            "ERROR: <input>:1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n \
             | 1.all(x, true)\n | ^"
                .to_owned(),
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^".to_owned()),
        ("has(1)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(1)\n | ....^".to_owned()),
        ("[1].all(1, true)", "ERROR: <input>:1:9: argument must be a simple name\n | [1].all(1, true)\n | ........^".to_owned()),
        ("while", "ERROR: <input>:1:1: reserved identifier: while\n | while\n | ^".to_owned()),
        ("JSONPatch{x: 1}", "ERROR: <input>:1:12: undefined field 'x'\n | JSONPatch{x: 1}\n | ...........^".to_owned()),
        (
            "JSONPatch{op: 1}",
            "ERROR: <input>:1:13: expected type of field 'op' is 'string' but provided type is 'int'\n | JSONPatch{op: 1}\n | \
             ............^"
                .to_owned(),
        ),
        ("duration('x')", "ERROR: <input>:1:10: invalid duration argument\n | duration('x')\n | .........^".to_owned()),
        ("'a'.matches('(')", "ERROR: <input>:1:13: invalid matches argument\n | 'a'.matches('(')\n | ............^".to_owned()),
        (
            "'é' + $",
            format!(
                "ERROR: <input>:1:7: Syntax error: token recognition error at: '$'\n | 'é' + $\n | .．....^\n\
                 ERROR: <input>:1:8: Syntax error: mismatched input '<EOF>' expecting {OPERAND}\n | 'é' + $\n | .．.....^"
            ),
        ),
        ("1 +\n\tself.x", "ERROR: <input>:2:6: undefined field 'x'\n |  self.x\n | .....^".to_owned()),
        ("self.count.x", "ERROR: <input>:1:11: type 'int' does not support field selection\n | self.count.x\n | ..........^".to_owned()),
        ("(1", "ERROR: <input>:1:3: Syntax error: missing ')' at '<EOF>'\n | (1\n | ..^".to_owned()),
        (
            "nope && nada",
            "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope && nada\n | ^\n\
             ERROR: <input>:1:9: undeclared reference to 'nada' (in container '')\n | nope && nada\n | ........^"
                .to_owned(),
        ),
    ] {
        let error = env().compile(expression).unwrap_err();
        assert_eq!(error.issues, issues, "{expression}");
        assert_eq!(error.to_string(), format!("compilation failed: {issues}"));
    }
}

#[test]
fn output_types() {
    for (expression, of) in [
        ("1 == 1", "bool"),
        ("[1, 2]", "list(int)"),
        ("[]", "list(dyn)"),
        ("{'a': 1}", "map(string, int)"),
        ("[JSONPatch{op: 'add'}]", "list(JSONPatch)"),
        ("Object{spec: 1}", "Object"),
        ("self.?name", "optional_type(string)"),
        ("true ? 1 : dyn('a')", "dyn"),
        ("null", "null"),
        ("self", "Thing"),
        ("quantity('1')", "kubernetes.Quantity"),
        ("type(1)", "type(int)"),
        ("[1].map(x, string(x))", "list(string)"),
        ("cel.bind(x, 1, [x])", "list(int)"),
    ] {
        assert_eq!(env().compile(expression).unwrap().output_type().to_string(), of, "{expression}");
    }
}

/// Deep, long and odd input is refused or taken, never fatal.
#[test]
fn hostile_expressions_are_bounded() {
    let deep = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    for expression in [
        deep("(", ")", 20_000),
        deep("[", "]", 20_000),
        deep("{1:", "}", 20_000),
        deep("!(", ")", 10_000),
        deep("-", "", 90_000),
        deep("size(", ")", 10_000),
        format!("1{}", "+1".repeat(40_000)),
        format!("a{}", ".b".repeat(40_000)),
        format!("a{}", "[0]".repeat(30_000)),
        format!("true{}", "?true:true".repeat(9_000)),
        "x".repeat(200_000),
        deep("[1].map(x, ", ")", 5_000),
        deep("[1].all(x, ", ")", 5_000),
    ] {
        let error = env().compile(&expression).err();
        assert!(error.is_some() || expression.starts_with('-'), "{}", &expression[..20]);
    }
    // Balanced logic is shallow however long.
    env().compile(&format!("true{}", " && true".repeat(10_000))).unwrap();
    // What is accepted can be checked, estimated and run on the stack of an ordinary thread.
    for (open, close) in
        [("[1].all(x, 1 in [1] && ", ")"), ("[1].map(x, ", ")"), ("(1 + ", ")"), ("[", "]"), ("size([", "])"), ("{1:", "}")]
    {
        let deepest = (1..300).map(|n| deep(open, close, n).replace("&& 1)", "&& true)")).take_while(|e| env().compile(e).is_ok()).last();
        let program = env().compile(&deepest.unwrap()).unwrap();
        let _estimate = program.estimated_cost(&|_: &[String]| None);
        let _outcome = program.eval(&cel::Variables::new(), &mut cel::Budget::new(cel::RUNTIME_BUDGET)).is_ok();
    }
}

proptest::proptest! {
    #[test]
    fn compiling_never_panics(text in "[ -~é\\n]{0,60}") {
        let _outcome = env().compile(&text).is_ok();
    }

    #[test]
    fn expressions_of_tokens_never_panic(
        words in proptest::collection::vec(proptest::sample::select(vec![
            "self", ".count", ".name", "1", "'a'", "+", "==", "&&", "||", "?", ":", "(", ")", "[", "]", "{", "}", ",", ".", "in",
            "has(", ".all(x,", ".map(x,", "x", "!", "-", "null", "true", "size(", "dyn(", ".?", "[?", "optional.of(",
        ]), 0..25),
    ) {
        let text = words.join(" ");
        if let Ok(program) = env().compile(&text) {
            let thing = serde_json::json!({"count": 1, "name": "n"});
            let mut variables = cel::Variables::new();
            variables.json("self", &thing);
            let mut budget = cel::Budget::new(1_000);
            let _outcome = program.eval(&variables, &mut budget).is_ok();
            let _estimate = program.estimated_cost(&|_: &[String]| None);
        }
    }
}
