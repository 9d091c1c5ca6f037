//! The names that Go knows in `\\p{Greek}`: categories with their aliases, and scripts. Rust knows more, which are refused.

const CATEGORIES: &str = "\
    c cc cf cn co cs l lc ll lm lo lt lu m mc me mn n nd nl no p pc pd pe pf pi po ps s sc sk sm so z zl zp zs";
const ALIASES: &str = "\
    any ascii assigned casedletter closepunctuation cntrl combiningmark connectorpunctuation control currencysymbol \
    dashpunctuation decimalnumber digit enclosingmark finalpunctuation format initialpunctuation letter letternumber \
    lineseparator lowercaseletter mark mathsymbol modifierletter modifiersymbol nonspacingmark number openpunctuation other \
    otherletter othernumber otherpunctuation othersymbol paragraphseparator privateuse punct punctuation separator \
    spaceseparator spacingmark surrogate symbol titlecaseletter unassigned uppercaseletter";
const SCRIPTS: &str = "\
    adlam ahom anatolianhieroglyphs arabic armenian avestan balinese bamum bassavah batak bengali bhaiksuki bopomofo brahmi \
    braille buginese buhid canadianaboriginal carian caucasianalbanian chakma cham cherokee chorasmian common coptic \
    cuneiform cypriot cyrillic deseret devanagari divesakuru dogra duployan egyptianhieroglyphs elbasan elymaic ethiopic \
    georgian glagolitic gothic grantha greek gujarati gunjalagondi gurmukhi han hangul hanifirohingya hanunoo hatran hebrew \
    hiragana imperialaramaic inherited inscriptionalpahlavi inscriptionalparthian javanese kaithi kannada katakana kawi \
    kayahli kharoshthi khitansmallscript khmer khojki khudawadi lao latin lepcha limbu lineara linearb lisu lycian lydian \
    mahajani makasar malayalam mandaic manichaean marchen masaramgondi medefaidrin meeteimayek mendekikakui meroiticcursive \
    meroitichieroglyphs miao modi mongolian mro multani myanmar nabataean nagmundari nandinagari newa newtailue nko nushu \
    nyiakengpuachuehmong ogham olchiki oldhungarian olditalic oldnortharabian oldpermic oldpersian oldsogdian \
    oldsoutharabian oldturkic oriya osage osmanya pahawhhmong palmyrene paucinhau phagspa phoenician psalterpahlavi rejang \
    runic samaritan saurashtra sharada shavian siddham signwriting sinhala sogdian sorasompeng soyombo sundanese sylotinagri \
    syriac tagalog tagbanwa taile taitham taiviet takri tamil tangut telugu thaana thai tibetan tifinagh tirhuta ugaritic \
    vai wancho warangciti yezidi yi zanabazarsquare";

/// Whether Go has a property of this name, which case, spaces, `_` and `-` do not matter to.
pub(super) fn is_known(name: &str) -> bool {
    let bare = bare(name);
    [CATEGORIES, ALIASES, SCRIPTS].iter().any(|names| names.split_ascii_whitespace().any(|known| known == bare))
}

/// Whether a property has no member that is a character.
pub(super) fn is_empty(name: &str) -> bool {
    matches!(bare(name).as_str(), "cs" | "surrogate")
}

fn bare(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex::Regex;

    #[test]
    fn rust_knows_them_all() {
        for name in [CATEGORIES, ALIASES, SCRIPTS].iter().flat_map(|names| names.split_ascii_whitespace()) {
            assert!(is_empty(name) || Regex::new(&format!(r"\p{{{name}}}")).is_ok(), "{name}");
        }
        assert!(is_known("Lu") && is_known("Old_Italic") && is_known("old italic") && is_known("LETTER"));
        assert!(!is_known("Alphabetic") && !is_known("Script=Greek") && !is_known("Grek") && !is_known(""));
    }
}
