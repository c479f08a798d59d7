//! Names and ids of containers.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// A quality, and who has it: surnames of people of science, one a word.
const QUALITIES: &str = "able amber ample apt astute blithe bold brave bright brisk calm candid clear clever crisp \
    deft eager earnest easy fair famous fleet fond frank free fresh gentle glad golden good grand happy hardy honest \
    humble jolly just keen kind lively loyal lucid lucky mellow merry mild modest neat nimble noble novel open placid \
    plain polite proud pure quick quiet rapid ready robust serene sharp silent sincere smart snug sober solid spry \
    steady still stoic sunny sure swift tender tidy tranquil trusty upbeat valiant vivid warm witty wise zealous";
const SURNAMES: &str = "abel adleman agnesi ampere anning archimedes avogadro babbage backus banach bardeen bell bernoulli \
    bessel bohr boltzmann boole born brahe brahmagupta cantor carnot carson cavendish cerf chandrasekhar \
    chebyshev church clausius codd conway copernicus coulomb curie dalton darwin descartes dijkstra dirac doppler \
    einstein elion erdos euclid euler faraday fermat fermi feynman fibonacci fourier franklin fresnel galileo galois \
    gauss germain goedel goodall hamilton hawking heisenberg hermite herschel hertz hilbert hodgkin hooke hopper hubble \
    humboldt huygens hypatia jacobi joule kepler khayyam kirchhoff knuth kovalevskaya lagrange lamarr laplace \
    lavoisier leavitt leibniz liskov lorentz lovelace mach markov maxwell mcclintock meitner mendel mendeleev minkowski \
    mirzakhani moebius napier newton noether nightingale oersted ohm oppenheimer ostrom pascal pasteur pauli payne \
    peano planck poincare poisson ptolemy pythagoras raman ramanujan rayleigh riemann ritchie roentgen rubin rutherford \
    salk schroedinger shannon snell stokes tesla thales thompson torvalds turing vaughan volta wilson wirth wu yalow \
    yonath yukawa zuse";

/// A name like `hardy_noether`; from the second try on with a digit behind it, as Docker does when a name is taken.
///
/// # Errors
/// Those of getrandom(2).
pub fn random(attempt: u32) -> Result<String> {
    let mut bytes = [0; 5];
    fill(&mut bytes)?;
    let pick = |words: &'static str, at: [u8; 2]| {
        let words: Vec<_> = words.split_whitespace().collect();
        words[usize::from(u16::from_ne_bytes(at)) % words.len()]
    };
    let name = format!("{}_{}", pick(QUALITIES, [bytes[0], bytes[1]]), pick(SURNAMES, [bytes[2], bytes[3]]));
    Ok(if attempt == 0 { name } else { format!("{name}{}", bytes[4] % 10) })
}

/// 64 hexadecimal digits. The first 12 are never all decimal: such a short id would be taken for a number.
///
/// # Errors
/// Those of getrandom(2).
pub fn id() -> Result<String> {
    loop {
        let mut bytes = [0; 32];
        fill(&mut bytes)?;
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if !id[..12].bytes().all(|c| c.is_ascii_digit()) {
            return Ok(id);
        }
    }
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|e| Error::system(format!("getrandom: {e}")))
}

/// Whether it is `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub fn is_valid(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    let mut letters = name.chars();
    letters.next().is_some_and(plain)
        && !letters.as_str().is_empty()
        && letters.all(|c| plain(c) || matches!(c, '_' | '.' | '-'))
}

/// A container's name as it was given, without the slash that Docker puts in front.
///
/// # Errors
/// What is not [`is_valid`].
pub fn check(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    if is_valid(bare) {
        return Ok(bare);
    }
    Err(Error::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

/// That a name is taken, in Docker's words.
pub fn conflict(name: &str, id: &str) -> Error {
    Error::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or \
         rename) that container to be able to reuse that name."
    ))
}

/// Which of `containers` (id and name) is meant: by its id, its name, or the only id that begins so.
///
/// # Errors
/// None, or more than one.
pub fn resolve<'a>(
    given: &str,
    containers: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Result<&'a str> {
    let bare = given.strip_prefix('/').unwrap_or(given);
    if let Some((id, _)) = containers.clone().find(|(id, _)| *id == given) {
        return Ok(id);
    }
    if let Some((id, _)) = containers.clone().find(|(_, name)| *name == bare) {
        return Ok(id);
    }
    let mut found = containers.filter(|(id, _)| !given.is_empty() && id.starts_with(given));
    match (found.next(), found.next()) {
        (Some((id, _)), None) => Ok(id),
        (Some(_), Some(_)) => {
            Err(Error::invalid(format!("Multiple IDs found with provided prefix: {given}")))
        }
        (None, _) => Err(no_such(given)),
    }
}

/// That there is none, in Docker's words.
pub fn no_such(given: &str) -> Error {
    Error::not_found(format!("No such container: {given}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn made_up_names_and_ids_are_valid() {
        for attempt in 0..200 {
            let name = random(attempt % 2).expect("random");
            assert!(is_valid(&name), "{name}");
            assert_eq!(name.split('_').count(), 2);
        }
        let id = id().expect("random");
        assert!(id.len() == 64 && id.bytes().all(|c| c.is_ascii_hexdigit()));
        for words in [QUALITIES, SURNAMES] {
            let words: Vec<_> = words.split_whitespace().collect();
            let unique: std::collections::BTreeSet<_> = words.iter().collect();
            assert_eq!(unique.len(), words.len());
            assert!(words.iter().all(|word| word.bytes().all(|c| c.is_ascii_lowercase())));
        }
    }

    #[test]
    fn a_name_is_checked_with_dockers_words() {
        for good in ["ab", "/ab", "a.b-c_d", "0a"] {
            check(good).expect(good);
        }
        for bad in ["", "/", "a", "a b", "-ab", "_ab", "ä1", "a/b"] {
            assert_eq!(
                check(bad).expect_err(bad).to_string(),
                format!("Invalid container name ({bad}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
            );
        }
    }

    #[test]
    fn a_container_is_found_by_id_name_and_unique_prefix() {
        let all = [("aa11", "one"), ("aa22", "bb"), ("bb33", "aa11")];
        let find = |given| resolve(given, all.iter().copied());
        assert_eq!(find("aa11").expect("an id goes first"), "aa11");
        assert_eq!(find("bb").expect("a name goes before a prefix"), "aa22");
        assert_eq!(find("/one").expect("with its slash"), "aa11");
        assert_eq!(find("bb3").expect("one begins so"), "bb33");
        assert_eq!(find("aa").expect_err("two begin so").kind(), Kind::Invalid);
        for none in ["", "cc", "/aa2"] {
            assert_eq!(find(none).expect_err(none).kind(), Kind::NotFound);
        }
    }
}
