//! The boundary, as the content type has it.

use super::*;

#[test]
fn a_boundary_is_read_bare_or_quoted_in_any_case_among_other_parameters() {
    for value in [
        "multipart/form-data; boundary=b=/:1",
        "Multipart/Form-Data;BOUNDARY=\"b=/:1\"",
        "multipart/form-data ; charset=utf-8;; boundary=b=/:1 ; x=\"; boundary=z\";",
    ] {
        assert_eq!(&of_content_type(value).expect(value).0[..], b"\r\n--b=/:1", "{value}");
    }
    assert_eq!(&of_content_type("multipart/form-data; boundary=\"a b\"").expect("spaces within").0[..], b"\r\n--a b");
}

#[test]
fn a_content_type_that_is_no_form_or_has_not_one_boundary_is_refused() {
    assert!(refused(Boundary::from_content_type(None)));
    for value in [
        "",
        "application/json",
        "multipart/mixed; boundary=b",
        "multipart/form-data",
        "multipart/form-data; boundary",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=b; Boundary=b",
        "multipart/form-data; boundary=\"b",
        "multipart/form-data; boundary=\"b\"c",
        "multipart/form-data; boundary=\"b \"",
        "multipart/form-data; boundary=a\r\nb",
        "multipart/form-data; boundary=a_\u{e9}",
        "multipart/form-data; boundary=a*b",
        "multipart/form-data; boundary = b",
        "multipart/form-data; =b",
        "multipart/form-data, boundary=b",
    ] {
        assert!(refused(of_content_type(value)), "{value}");
    }
}

#[test]
fn a_boundary_has_1_to_70_characters() {
    for (length, good) in [(0, false), (1, true), (69, true), (70, true), (71, false), (8192, false)] {
        let value = format!("multipart/form-data; boundary={}", "b".repeat(length));
        assert_eq!(of_content_type(&value).is_ok(), good, "{length}");
    }
}

#[test]
fn a_hostile_content_type_is_read_in_linear_time() {
    for pattern in [";", "\\\"", "a=b;", "\" ", " ", "boundary"] {
        for start in ["", "; boundary=\"", "; boundary="] {
            let value = format!("multipart/form-data{start}{}", pattern.repeat(1 << 20));
            // No more than this: were it quadratic, the test would not end.
            let _ = of_content_type(&value);
        }
    }
}
