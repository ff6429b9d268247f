use proptest::prelude::*;

use super::*;
use crate::figures::testing;

fn read(file: &str, content: &str) -> Result<Vec<String>, String> {
    let path = Path::new(file);
    let figures =
        Format::of(path).unwrap().parse(path, content.as_bytes()).map_err(|error| error.to_string())?;
    Ok(figures.iter().map(|shelved| String::from_utf8(shelved.body().to_vec()).unwrap()).collect())
}

fn one(file: &str, content: &str) -> String {
    let mut figures = read(file, content).unwrap();
    assert_eq!(figures.len(), 1);
    figures.remove(0)
}

fn refused(file: &str, content: &str) -> String {
    read(file, content).unwrap_err()
}

#[test]
fn the_end_of_its_name_says_how_a_file_is_written() {
    for (name, format) in [
        ("a.json", Some(Format::Json)),
        ("A.TOML", Some(Format::Toml)),
        ("a.b.csv", Some(Format::Csv)),
        ("a.ldr", Some(Format::Ldraw)),
        ("a.Mpd", Some(Format::Ldraw)),
        ("a.json~", None),
        ("a.json.tmp", None),
        ("json", None),
        (".json", None),
    ] {
        assert_eq!(Format::of(Path::new(name)), format, "{name}");
    }
}

#[test]
fn json_is_one_figure_or_a_list() {
    let duck = r#"{"name":"Duck","pieces":[{"part":"b","color":null,"quantity":1},{"part":"a","color":"red","quantity":2}]}"#;
    let body = r#"{"name":"duck","total":3,"pieces":[{"part":"a","color":"red","quantity":2},{"part":"b","quantity":1}]}"#;
    assert_eq!(one("x.json", duck), body);
    assert_eq!(one("x.json", &format!("\u{feff}{duck}\n")), body);
    assert_eq!(read("x.json", &format!("[{duck},\n{duck}]")).unwrap(), [body, body]);
    assert_eq!(read("x.json", "[]").unwrap(), [""; 0]);
}

#[test]
fn a_share_in_a_file_is_a_share_in_its_body() {
    let hash = "0b".repeat(32);
    let file = format!(
        r#"{{"name":"a","share":{{"index":1,"of":3}},"of_hash":"{hash}","pieces":[{{"part":"a","quantity":2}}]}}"#
    );
    let body = file.replacen("\"share\"", "\"total\":2,\"share\"", 1);
    assert_eq!(one("x.json", &file), body);
}

#[test]
fn errors_in_json_have_their_line() {
    let figure = |piece: &str| format!("[\n{{\"name\": \"a\",\n\"pieces\": [\n{piece}\n]}}]");
    for (file, error) in [
        ("[{\"name\":\n\"a\",", "line 2: EOF while parsing a value"),
        ("", "line 1: EOF while parsing a value"),
        ("7", "line 1: invalid type: integer `7`, expected a figure or a list of figures"),
        ("{\"name\":\n\"a b\"}", "line 2: a figure name is 1 to 64 of a-z, 0-9, '.', '_' and '-'"),
        ("{\"name\":\"a\",\"pieces\":[]}", "line 1: there are no pieces"),
        ("{\"name\":\"a\"}", "line 1: missing field `pieces`"),
        ("[]\n[]", "line 2: trailing characters"),
        (
            &figure(r#"{"part":"a","quantity":0}"#),
            "line 4: invalid value: integer `0`, expected a nonzero u32",
        ),
        (
            &figure("{\"part\":\"a\",\"quantity\":1},\n{\"part\":\n\"a\\u0007\"\n,\"quantity\":1}"),
            "line 6: part \"a\\u{7}\" has characters that cannot be seen",
        ),
        (
            &figure(r#"{"part":"a","quantity":-1}"#),
            "line 4: invalid value: integer `-1`, expected a nonzero u32",
        ),
        (
            &figure(r#"{"part":"a","quantity":4294967296}"#),
            "line 4: invalid value: integer `4294967296`, expected a nonzero u32",
        ),
        (
            &figure("{\"part\":\"a\",\"quantity\":4294967295},\n{\"part\":\"b\",\"quantity\":1}"),
            "line 6: more than 4294967295 pieces",
        ),
        (
            &figure(r#"{"part":"a","quantity":1,"\u001b[2J":1}"#),
            r"line 4: unknown field `\u{1b}[2J`, expected one of `part`, `color`, `colour`, `quantity`",
        ),
    ] {
        assert_eq!(refused("x.json", file), error, "{file}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(refused("x.json", &deep), "line 1: invalid type: sequence, expected a string");
    let deep = format!("{{\"name\":\"a\",\"sources\":{}", "[".repeat(100_000));
    assert_eq!(refused("x.json", &deep), "line 1: EOF while parsing a list");
}

#[test]
fn toml_is_one_figure_or_several() {
    let one_figure = "name = 'duck'\ntotal = 3\n[[pieces]]\npart = 'a'\ncolor = 'red'\nquantity = 3\n";
    let body = r#"{"name":"duck","total":3,"pieces":[{"part":"a","color":"red","quantity":3}]}"#;
    assert_eq!(one("x.toml", one_figure), body);
    let list = "[[figures]]\nname = 'a'\npieces = [{part = 'a', quantity = 1}]\n\
                [[figures]]\nname = 'b'\nshare = {index = 2, of = 2}\n[[figures.pieces]]\npart = 'b'\nquantity = 2\n";
    assert_eq!(
        read("x.toml", list).unwrap(),
        [
            r#"{"name":"a","total":1,"pieces":[{"part":"a","quantity":1}]}"#,
            r#"{"name":"b","total":2,"share":{"index":2,"of":2},"pieces":[{"part":"b","quantity":2}]}"#
        ]
    );
}

#[test]
fn errors_in_toml_have_their_line() {
    for (file, error) in [
        ("name = 'a'\nname = 'b'", "line 2: duplicate key"),
        (
            "name = 'a'\n[[pieces]]\npart = 'a'\nquantity = 'x'",
            "line 4: invalid type: string \"x\", expected a nonzero u32",
        ),
        (
            "name = 'a'\n[[pieces]]\npart = 'a'\nquantity = 0",
            "line 4: invalid value: integer `0`, expected a nonzero u32",
        ),
        (
            "name = 'a'\ntotal = 3\n[[pieces]]\npart = 'a'\nquantity = 2",
            "total is 3, but the quantities add up to 2",
        ),
        ("\n[[figures]]\nname = 'a b'", "line 3: a figure name is 1 to 64 of a-z, 0-9, '.', '_' and '-'"),
        ("[[figures]]\nname = 'a'\npieces = []", "line 1: there are no pieces"),
        ("figures = []\n[other]", "line 2: unknown field `other`, expected `figures`"),
    ] {
        assert_eq!(refused("x.toml", file), error, "{file}");
    }
    let latin = Format::Toml.parse(Path::new("x.toml"), b"name = 'a'\n# gr\xfcn").unwrap_err();
    assert_eq!(latin.to_string(), "line 2: not UTF-8");
}

const REBRICKABLE: &str = "Part,Color,Quantity,Is Spare\r\n3001,4,2,False\r\n3001,4,1,False\r\n3002,9999,1,False\r\n\
                           \"3003\",,5,False\r\n3004,1,7,True\r\n";

#[test]
fn csv_is_a_part_list_without_its_spares() {
    assert_eq!(
        one("dir/My Set (75192-1).csv", REBRICKABLE),
        r#"{"name":"my-set-75192-1-","total":9,"pieces":[{"part":"3001","color":"4","quantity":3},{"part":"3002","quantity":1},{"part":"3003","quantity":5}]}"#
    );
    let other_order = "quantity,note,PART\n 2 ,x, 3001 \n";
    assert_eq!(
        one("a.csv", other_order),
        r#"{"name":"a","total":2,"pieces":[{"part":"3001","quantity":2}]}"#
    );
}

#[test]
fn errors_in_csv_have_their_line() {
    let rows = |rows: &str| format!("Part,Color,Quantity,Is Spare\n3001,4,2,False\n{rows}");
    for (file, error) in [
        (String::new(), "line 1: no column \"Part\" in the first line"),
        ("Part,Qty\n".into(), "line 1: no column \"Quantity\" in the first line"),
        ("Part,Color,Quantity,Is Spare\n".into(), "there are no pieces"),
        (rows("3001,4"), "line 3: 2 fields, the first line has 4"),
        (rows("3001,4,x,False"), "line 3: quantity \"x\" is not a number"),
        (rows("3001,4,0,False"), "line 3: quantity of \"3001\" is 0"),
        (rows(",4,1,False"), "line 3: a piece has no part"),
        (rows("3001,4,1,maybe"), "line 3: is spare \"maybe\" is neither true nor false"),
        (rows("\"a\tb\",4,1,False"), "line 3: part \"a\\tb\" has characters that cannot be seen"),
    ] {
        assert_eq!(refused("a.csv", &file), error, "{file}");
    }
    let latin = Format::Csv.parse(Path::new("a.csv"), b"Part,Quantity\ngr\xfcn,1\n").unwrap_err();
    assert_eq!(latin.to_string(), "line 2: not UTF-8");
    assert_eq!(refused("é%.csv", "Part,Quantity\n").split(':').next(), Some("there are no pieces"));
    assert!(
        refused(&format!("{}.csv", "a".repeat(65)), REBRICKABLE).starts_with("the file names the figure: ")
    );
}

const AT: &str = "0 0 0 1 0 0 0 1 0 0 0 1";

#[test]
fn ldraw_parts_lose_their_ending_and_keep_their_colour_code() {
    let model = format!(
        "0 My model\r\n0 Name: boat.ldr\r\n\r\n1 4 {AT} 3001.dat\r\n1 4 {AT} 3001.DAT\r\n\
         1 16 {AT} s\\3002s01.dat\r\n1 0x2FF00aa -1.5 .5 1e3 1 0 0 0 1 0 0 0 1 my part.dat\r\n\
         2 24 0 0 0 1 1 1\r\n5 24 0 0 0 1 1 1 0 0 0 1 1 1"
    );
    assert_eq!(
        one("Boat.ldr", &model),
        r#"{"name":"boat","total":4,"pieces":[{"part":"3001","color":"4","quantity":2},{"part":"my part","color":"0x2ff00aa","quantity":1},{"part":"s/3002s01","quantity":1}]}"#
    );
}

#[test]
fn submodels_are_expanded_in_the_colour_that_uses_them() {
    let model = format!(
        "0 FILE Main.ldr\n1 4 {AT} WING.ldr\n1 1 {AT} wing.LDR\n1 16 {AT} wing.ldr\n\
         0 FILE wing.ldr\n1 16 {AT} 1.dat\n1 7 {AT} 2.dat\n1 2 {AT} sub\\Tip 1.ldr\n0 NOFILE\n1 3 {AT} 9.dat\n\
         0 FILE sub/tip 1.ldr\n1 16 {AT} 3.dat\n1 16 {AT} 3.dat\n\
         0 FILE unused.ldr\n1 16 {AT} 8.dat\n"
    );
    assert_eq!(
        one("a.mpd", &model),
        r#"{"name":"a","total":12,"pieces":[{"part":"1","quantity":1},{"part":"1","color":"1","quantity":1},{"part":"1","color":"4","quantity":1},{"part":"2","color":"7","quantity":3},{"part":"3","color":"2","quantity":6}]}"#
    );
}

#[test]
fn errors_in_ldraw_have_their_line() {
    for (file, error) in [
        (String::new(), "there are no pieces"),
        ("0 only remarks\n".into(), "there are no pieces"),
        (format!("0 x\n1 4 {AT}"), "line 2: a piece has no part"),
        (
            format!("1 4 {AT} 3001.dat\n1 4 0 0 0 1 0"),
            "line 2: a part has a colour, twelve numbers and a file",
        ),
        (format!("1 red {AT} 3001.dat"), "line 1: \"red\" is not a colour code"),
        (format!("1 -1 {AT} 3001.dat"), "line 1: \"-1\" is not a colour code"),
        ("PK\u{3}\u{4}".into(), "line 1: an LDraw line begins with 0 to 5"),
        (
            format!("1 4 {AT} wing.ldr"),
            "line 1: submodel \"wing.ldr\" is not in this file; save the model as .mpd",
        ),
        (
            format!("1 4 {AT} ../../etc/passwd"),
            "line 1: submodel \"../../etc/passwd\" is not in this file; save the model as .mpd",
        ),
        (
            format!("0 FILE a\n1 4 {AT} b\n0 FILE b\n1 4 {AT} c\n0 FILE c\n1 4 {AT} b"),
            "line 6: submodel \"b\" contains itself",
        ),
        (format!("0 FILE a\n1 4 {AT} a"), "line 2: submodel \"a\" contains itself"),
        (format!("0 FILE a\n1 4 {AT} b\n0 FILE b\n0 FILE B"), "line 4: a second model \"b\""),
    ] {
        assert_eq!(refused("a.mpd", &file), error, "{file}");
    }
}

/// `levels` models, each of which uses the next `width` times; the last holds `parts` different parts.
fn nested(levels: usize, width: usize, parts: usize) -> String {
    let mut model = String::new();
    for level in 1..levels {
        model += &format!("0 FILE {level}\n");
        model += &format!("1 16 {AT} {}\n", level + 1).repeat(width);
    }
    model += &format!("0 FILE {levels}\n");
    model.extend((0..parts).map(|part| format!("1 4 {AT} {part}.dat\n")));
    model
}

#[test]
fn nesting_multiplies_numbers_and_not_work() {
    assert!(one("a.mpd", &nested(10, 10, 1)).starts_with(r#"{"name":"a","total":1000000000,"#));
    assert_eq!(refused("a.mpd", &nested(11, 10, 1)), "line 6: too many pieces");
    assert_eq!(
        refused("a.mpd", &nested(3, 1000, 1000)),
        "line 2003: more than a million parts and submodels to count".replace("2003", "2002").as_str()
    );
    assert!(one("a.mpd", &nested(32, 1, 1)).contains("\"total\":1,"));
    assert_eq!(refused("a.mpd", &nested(33, 1, 1)), "line 64: submodels more than 32 deep");
    assert_eq!(refused("a.mpd", &nested(100_000, 1, 1)), "line 64: submodels more than 32 deep");
}

proptest! {
    #[test]
    fn a_body_is_a_file_that_gives_the_same_body(figures in proptest::collection::vec(testing::figures(), 1..5)) {
        let bodies: Vec<&str> = figures.iter().map(|figure| std::str::from_utf8(figure.body()).unwrap()).collect();
        prop_assert_eq!(read("a.json", &format!("[{}]", bodies.join(",\n"))), Ok(bodies.iter().map(|b| (*b).to_owned()).collect()));
        let as_toml = ::toml::to_string(&serde_json::from_str::<serde_json::Value>(bodies[0]).unwrap()).unwrap();
        prop_assert_eq!(read("a.toml", &as_toml), Ok(vec![bodies[0].to_owned()]));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for file in ["a.json", "a.toml", "a.csv", "a.ldr"] {
            let path = Path::new(file);
            let _ = Format::of(path).unwrap().parse(path, &bytes);
        }
    }

    #[test]
    fn damaged_files_never_panic_and_errors_are_one_safe_line(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut: prop::sample::Index,
    ) {
        let mpd = nested(4, 3, 5);
        for (file, content) in [
            ("a.json", include_str!("../builtin.json")),
            ("a.toml", "name = 'a'\n[[pieces]]\npart = 'a'\ncolor = 'red'\nquantity = 3\n"),
            ("a.csv", REBRICKABLE),
            ("a.mpd", &mpd),
        ] {
            let mut bytes = content.as_bytes().to_vec();
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes.truncate(cut.index(bytes.len() * 2));
            let path = Path::new(file);
            if let Err(error) = Format::of(path).unwrap().parse(path, &bytes) {
                prop_assert!(error.to_string().chars().all(crate::figures::text::is_plain), "{error}");
                let lines = bytes.split(|&byte| byte == b'\n').count();
                prop_assert!(error.line.is_none_or(|line| (1..=lines + 1).contains(&line)), "{error}");
            }
        }
    }
}
