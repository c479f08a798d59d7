//! Lists of CPUs and of memory nodes, `0-3,7`, as the kernel's bit masks.

#![forbid(unsafe_code)]

use std::fmt;

/// The highest CPU or node number accepted: far above any machine's, and a bound on the memory a typing
/// error can cost.
pub const HIGHEST: u32 = 65_535;

const BITS: usize = usize::BITS as usize;

/// A set of small numbers; never empty when [`Bitmask::parse`] made it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bitmask(Vec<usize>);

impl Bitmask {
    /// Reads a list (cpuset(7), "List format"); `None` for an empty text. Blanks around elements and empty
    /// elements are skipped, as the kernel and runc do.
    ///
    /// # Errors
    /// What is wrong with the list, without its place.
    pub fn parse(list: &str) -> Result<Option<Self>, String> {
        if list.is_empty() {
            return Ok(None);
        }
        let mut mask = Self::default();
        for element in list.split(',').map(str::trim).filter(|element| !element.is_empty()) {
            let (first, last) = match element.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(element)?, number(element)?),
            };
            if first > last {
                return Err(format!("invalid range: {element}"));
            }
            for n in first..=last {
                mask.insert(n);
            }
        }
        if mask.0.is_empty() {
            return Err(format!("no members found in set {list:?}"));
        }
        Ok(Some(mask))
    }

    fn insert(&mut self, n: usize) {
        if self.0.len() <= n / BITS {
            self.0.resize(n / BITS + 1, 0);
        }
        if let Some(word) = self.0.get_mut(n / BITS) {
            *word |= 1 << (n % BITS);
        }
    }

    /// The mask in the kernel's layout: words of an `unsigned long`, lowest numbers first.
    pub fn words(&self) -> &[usize] {
        &self.0
    }

    /// The numbers in the set, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(i, word)| {
            (0..BITS).filter(move |bit| word & (1 << bit) != 0).map(move |bit| i * BITS + bit)
        })
    }

    /// The whole set as one hexadecimal number, highest first, as runc's debug log has it.
    pub fn hex(&self) -> String {
        let mut text = String::new();
        for word in self.0.iter().rev() {
            if text.is_empty() {
                text = format!("0x{word:x}");
            } else {
                text += &format!("{word:0width$x}", width = BITS / 4);
            }
        }
        text
    }
}

fn number(text: &str) -> Result<usize, String> {
    // `parse` alone would take "+3".
    match text.parse::<u32>() {
        Ok(n) if n <= HIGHEST && text.bytes().all(|b| b.is_ascii_digit()) => Ok(n as usize),
        Ok(n) if n > HIGHEST => Err(format!("values larger than {HIGHEST} are not supported")),
        _ => Err(format!("{text:?} is not a number")),
    }
}

impl fmt::Display for Bitmask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers = self.numbers().peekable();
        let mut gap = "";
        while let Some(first) = numbers.next() {
            let mut last = first;
            while numbers.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            if first == last {
                write!(f, "{gap}{first}")?;
            } else {
                write!(f, "{gap}{first}-{last}")?;
            }
            gap = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks_and_back() {
        for (list, canonical) in [
            ("0", "0"),
            ("0-3,7", "0-3,7"),
            ("7,3,2,1,0", "0-3,7"),
            (" 1 , 2,,", "1-2"),
            ("63,64", "63-64"),
            ("1500", "1500"),
        ] {
            let mask = Bitmask::parse(list).expect("accepted").expect("not empty");
            assert_eq!(mask.to_string(), canonical, "{list:?}");
        }
        assert_eq!(Bitmask::parse(""), Ok(None));
    }

    #[test]
    fn the_layout_is_the_kernels() {
        let mask = Bitmask::parse("0,5,64").expect("accepted").expect("not empty");
        if BITS == 64 {
            assert_eq!(mask.words(), [0b10_0001, 1]);
            assert_eq!(mask.hex(), "0x10000000000000021");
        }
        assert_eq!(mask.numbers().collect::<Vec<_>>(), [0, 5, 64]);
    }

    #[test]
    fn nonsense_is_refused() {
        for list in
            ["a-b", "3-1", ",", " ", "1-", "-1", "+3", "1-2-3", "0x1", "65536", "999999", "4294967296"]
        {
            assert!(Bitmask::parse(list).is_err(), "{list:?}");
        }
    }
}
