//! `--format`: the part of Go's text/template, and of the functions that docker adds to it, that people use with
//! docker (<https://pkg.go.dev/text/template>, <https://docs.docker.com/engine/cli/formatting/>), over JSON.
//!
//! Where Go tells a nil pointer, map and slice apart there is only `null` here, which prints `<no value>`; a map
//! prints as Go's maps do where docker has a structure. A template is what a user or a script made of foreign names
//! says: it can nest only so deep, run only so long and print only so much.

#![forbid(unsafe_code)]

mod functions;
mod parse;
mod run;

use crate::error::Result;
use serde_json::Value;
use std::collections::BTreeMap;

/// A template that parsed.
#[derive(Debug)]
pub(crate) struct Template {
    source: String,
    nodes: Vec<parse::Node>,
}

impl Template {
    /// # Errors
    /// With the line and the byte in it where the first thing does not fit.
    pub(crate) fn parse(source: &str) -> Result<Self> {
        Ok(Self { source: source.to_owned(), nodes: parse::parse(source)? })
    }

    /// What it prints of `data`.
    ///
    /// # Errors
    /// A field that is not there, a function that cannot take what it got, each with the position.
    pub(crate) fn render(&self, data: &Value) -> Result<String> {
        run::run(self, data, None, false)
    }

    /// The same, where `{{.Label "KEY"}}` is one of `labels`, or empty.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub(crate) fn render_labelled(&self, data: &Value, labels: &BTreeMap<String, String>) -> Result<String> {
        run::run(self, data, Some(labels), false)
    }

    /// What it prints of the titles of a table, where functions leave their argument as it is.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub(crate) fn render_titles(&self, titles: &Value) -> Result<String> {
        run::run(self, titles, None, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn data() -> Value {
        // As `docker context inspect default` has it: what is expected below is what docker 28.2.2 prints of it.
        json!({
            "Name": "default", "Metadata": {},
            "Endpoints": {"docker": {"Host": "unix:///var/run/docker.sock", "SkipTLSVerify": false}},
            "TLSMaterial": {}, "Tags": ["a", "b"], "Size": 5, "Nothing": null, "Labels": {"k": "v", "a.b": "c"}
        })
    }

    fn rendered(template: &str) -> String {
        match Template::parse(template).and_then(|template| template.render(&data())) {
            Ok(text) => text,
            Err(e) => format!("! {e}"),
        }
    }

    #[test]
    fn a_template_prints_what_docker_prints() {
        for (template, expected) in [
            ("", ""),
            ("plain }} text", "plain }} text"),
            ("{{.Name}}", "default"),
            (
                "{{ .Name }} {{$.Name}} {{.Endpoints.docker.Host}}",
                "default default unix:///var/run/docker.sock",
            ),
            (r#"{{(index .Endpoints "docker").Host}}"#, "unix:///var/run/docker.sock"),
            (r#"{{index .Endpoints "no"}}"#, "<no value>"),
            (r#"{{index .Labels "a.b"}}{{index .Labels "no"}}{{index .Nothing "no"}}"#, "c"),
            (r#"{{index .Name 0}}"#, "! "),
            ("{{index .Tags 1}}", "b"),
            ("{{len .Name}} {{len .Endpoints}} {{len .Tags}}", "7 1 2"),
            (
                "{{range $k, $v := .Endpoints}}{{$k}}={{$v.Host}};{{end}}",
                "docker=unix:///var/run/docker.sock;",
            ),
            ("{{range .Tags}}<{{.}}>{{else}}none{{end}}", "<a><b>"),
            ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
            ("{{range $i, $e := .Tags}}{{if $i}},{{end}}{{$e}}{{end}}", "a,b"),
            ("{{range 3}}a{{.}}{{end}}", "a0a1a2"),
            (r#"{{range .Tags}}{{if eq . "b"}}{{break}}{{end}}{{.}}{{end}}"#, "a"),
            (r#"{{range .Tags}}{{if eq . "a"}}{{continue}}{{end}}{{.}}{{end}}"#, "b"),
            (
                r#"{{printf "%s|%10s|%-10s|%q|%v|%d" .Name .Name .Name .Name .TLSMaterial 5}}"#,
                "default|   default|default   |\"default\"|map[]|5",
            ),
            (r#"{{printf "%d" .Name}}"#, "%!d(string=default)"),
            (
                r#"{{printf "%T %x %t %5.2f %% %03d" .Name "ab" true 1.234 7}}"#,
                "string 6162 true  1.23 % 007",
            ),
            (
                r#"{{printf "%z" 1}} {{printf "%d"}} {{printf "a" 1}}"#,
                "%!z(int=1) %!d(MISSING) a%!(EXTRA int=1)",
            ),
            ("{{.Name|upper}} {{lower \"AB\"}} {{title \"ab cd\"}}", "DEFAULT ab Ab Cd"),
            (r#"{{ .Name | printf "%s-%s" "a" }}"#, "a-default"),
            (r#"{{if eq .Name "default"}}y{{else}}n{{end}}"#, "y"),
            (
                r#"{{if eq .Name "x" "default"}}y{{end}}{{if ne .Size 5}}n{{end}}{{if gt .Size 4}}g{{end}}"#,
                "yg",
            ),
            (r#"{{if .Nothing}}a{{else if .Name}}b{{else}}c{{end}}"#, "b"),
            (
                "{{with .Endpoints.docker}}{{.Host}}{{end}}{{with .Nothing}}x{{else}}y{{end}}",
                "unix:///var/run/docker.socky",
            ),
            ("{{if .State.Health}}a{{else}}b{{end}}", "b"),
            ("{{println 1 2}}", "1 2\n"),
            ("{{print .Name 1 2}}", "default1 2"),
            ("{{\"a`b\"}}{{`c\\d`}}{{\"\\t\"}}", "a`bc\\d\t"),
            ("a  {{- .Name -}}   x", "adefaultx"),
            ("{{truncate .Name 3}}{{pad .Name 1 2}}|", "def default  |"),
            (r#"{{split .Name "a"}} {{join .Tags ","}}"#, "[def ult] a,b"),
            ("{{and .Name 0}} {{or .Name 0}} {{not .Name}} {{or .Nothing .Foo .Bar | not}}", "! "),
            ("{{and .Name 0}} {{or .Name 0}} {{not .Name}}", "0 default false"),
            ("{{and .Nothing .Foo}}", "<no value>"),
            ("{{1e3}} {{0x10}} {{true}} {{-5}} {{1.5}}", "1000 16 true -5 1.5"),
            ("{{slice .Name 1 3}} {{slice .Tags 1}}", "ef [b]"),
            ("{{/* c */}}x{{- /* d */ -}} y", "xy"),
            ("{{$x := .Name}}{{$x}}{{$x = 1}}{{$x}}", "default1"),
            ("{{.Labels}} {{.Tags}} {{.Nothing}} {{.Size}}", "map[a.b:c k:v] [a b] <no value> 5"),
            (
                "{{json .Tags}} {{json .Name}} {{json .Nothing}} {{json \"<a>\"}}",
                "[\"a\",\"b\"] \"default\" null \"<a>\"",
            ),
            (
                "{{json .Endpoints}}",
                "{\"docker\":{\"Host\":\"unix:///var/run/docker.sock\",\"SkipTLSVerify\":false}}",
            ),
        ] {
            let got = rendered(template);
            if expected == "! " {
                assert!(got.starts_with("! template parsing error: template: :1:"), "{template}: {got}");
            } else {
                assert_eq!(got, expected, "{template}");
            }
        }
    }

    #[test]
    fn a_label_is_asked_for_by_its_key() {
        let labels = BTreeMap::from([("a.b".to_owned(), "c,d".to_owned())]);
        let render = |template: &str| {
            Template::parse(template).and_then(|template| template.render_labelled(&data(), &labels))
        };
        assert_eq!(
            render(r#"{{.Label "a.b"}}{{.Label "no"}}{{$.Label "a.b"|upper}}"#).expect("labels"),
            "c,dC,D"
        );
        assert_eq!(render(r#"{{if .Label "no"}}a{{else}}b{{end}}"#).expect("labels"), "b");
        for bad in
            ["{{.Label}}", "{{.Label 5}}", r#"{{.Label "a" "b"}}"#, r#"{{.Name "a"}}"#, r#"{{"a" | .Label}}"#]
        {
            assert!(render(bad).is_err(), "{bad}");
        }
        assert!(rendered(r#"{{.Label "a"}}"#).starts_with("! "), "nothing here has labels");
        let titles =
            Template::parse(r#"{{.Label "a.b"}}"#).and_then(|template| template.render_titles(&data()));
        assert_eq!(titles.expect("titles"), "a.b");
    }

    #[test]
    fn an_error_has_its_position() {
        for (template, expected) in [
            ("{{.Foo}}", ":1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\" (there are"),
            ("a\nbc{{.Name.X}}", ":2:4: executing \"\" at <.Name.X>: can't evaluate field X in type string"),
            ("{{.Nothing.X}}", ":1:2: executing \"\" at <.Nothing.X>: nil data; no entry for key \"X\""),
            ("{{foo}}", ":1:2: function \"foo\" not defined (there are and eq"),
            ("{{.Name", ":1:0: unclosed action"),
            ("{{if .Name}}", "unexpected EOF"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{else}}", "unexpected {{else}}"),
            ("{{.Name}} {{end}}", "unexpected {{end}}"),
            ("{{if .Name}}{{else}}{{else}}{{end}}", "unexpected {{else}}"),
            ("{{}}", ":1:2: missing value for command"),
            ("{{if}}x{{end}}", "missing value for if"),
            ("{{\"abc}}", ":1:2: unterminated quoted string"),
            ("{{\"\\z\"}}", "unknown escape"),
            ("{{`abc}}", "unterminated raw quoted string"),
            ("{{$x}}", ":1:2: undefined variable \"$x\""),
            ("{{$x = 1}}", "undefined variable \"$x\""),
            ("{{.Name 1}}", ":1:2: executing \"\" at <.Name>: it has arguments but is no function"),
            ("{{nil}}", "nil is not a command"),
            ("{{lower 5}}", ":1:2: executing \"\" at <lower>: error calling lower: expected string; found 5"),
            ("{{eq 1}}", "wrong number of arguments: 1"),
            ("{{index .Tags 9}}", "index out of range: 9"),
            ("{{range .Name}}x{{end}}", ":1:8: executing \"\" at <.Name>: range can't iterate over default"),
            ("{{(.Name}}", "unclosed left paren"),
            ("{{.Name)}}", "unexpected operand"),
            ("{{.Name | 5}}", "non executable command in pipeline"),
            ("{{#}}", "unexpected '#' in operand"),
            ("{{1x}}", "bad number syntax: \"1x\""),
            ("{{break}}", "{{break}} outside {{range}}"),
            ("{{/* x", "unclosed comment"),
            ("{{template \"x\"}}", "{{template}} is not supported"),
        ] {
            let got = rendered(template);
            assert!(got.starts_with("! template parsing error: template: :"), "{template}: {got}");
            assert!(got.contains(expected) && !got.contains('\n'), "{template}: {got}");
        }
    }

    #[test]
    fn a_hostile_template_neither_overflows_the_stack_nor_runs_for_ever() {
        let deep = 100_000;
        for template in [
            format!("{{{{{}", "(".repeat(deep)),
            format!("{{{{{}.{}}}}}", "(".repeat(deep), ")".repeat(deep)),
            "{{if 1}}".repeat(deep),
            "{{range 9}}".repeat(deep),
            format!("{}x{}", "{{range 9}}".repeat(40), "{{end}}".repeat(40)),
            "{{range 99999999999}}{{end}}".to_owned(),
            "{{range 18446744073709551615}}x{{end}}".to_owned(),
            format!("{{{{$x := \"xxxxxxxxxxxxxxxx\"}}}}{}", "{{$x = print $x $x $x $x}}".repeat(100)),
            "{{range 9999}}{{pad \"x\" 9999999999 9999999999}}{{end}}".to_owned(),
            "{{range 999999}}{{printf \"%99999999999d\" 1}}{{end}}".to_owned(),
            "{{if 1}}{{else ".repeat(deep),
            "{{else if 1}}".repeat(deep),
        ] {
            let text = rendered(&template);
            assert!(text.starts_with("! "), "{:.60}: {:.100}", template, text);
        }
        // Long is not deep.
        assert_eq!(rendered(&"{{.Size}}".repeat(10_000)).len(), 10_000);
        assert_eq!(rendered(&format!("{{{{.Name{}}}}}", "|lower".repeat(10_000))), "default");
        assert!(rendered(&format!("{{{{.{}}}}}", "A.".repeat(50_000))).starts_with("! "));
    }

    #[test]
    fn no_piece_of_a_template_panics() {
        let whole = "é{{- range $k, $v := .Endpoints -}} {{$k | printf \"%5.2s\" | upper}}{{if and (eq $k `d`) 1.5}}\
                     {{else}}{{/* é */}}{{end}}{{$v.Host}} {{end}}{{with $x := .Name}}{{slice $x 1 2}}{{end}}";
        let letters: Vec<char> = whole.chars().collect();
        for from in 0..letters.len() {
            for to in (from..letters.len()).step_by(3) {
                rendered(&letters[from..to].iter().collect::<String>());
            }
            let without: String = letters[..from].iter().chain(&letters[from + 1..]).collect();
            rendered(&without);
        }
    }

    #[test]
    fn titles_pass_through_functions() {
        let titles = json!({"Name": "NAME", "Labels": "LABELS"});
        let template =
            Template::parse("{{upper .Name}} {{json .Labels}} {{join .Name \",\"}} {{truncate .Name 2}}");
        assert_eq!(
            template.expect("it parses").render_titles(&titles).expect("titles"),
            "NAME LABELS NAME NAME"
        );
    }
}
