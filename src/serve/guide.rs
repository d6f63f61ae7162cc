//! What the classes of HAM10000 and the ISIC challenges are, and what dermatoscopists look for, in a few plain sentences. Of other
//! classes nothing is said.

use serde::Serialize;

/// A short text on a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Guide {
    /// Its name in full.
    pub title: &'static str,
    /// `benign`, `malignant`, or what lies between.
    pub nature: &'static str,
    /// What it is.
    pub what: &'static str,
    /// What is looked for through a dermatoscope.
    pub signs: &'static [&'static str],
    /// What it is mistaken for.
    pub alike: &'static str,
}

const MELANOMA: Guide = Guide {
    title: "Melanoma",
    nature: "malignant",
    what: "A cancer of the cells that make the skin's pigment, the melanocytes. It can spread to lymph nodes and other organs; \
           how deep it has grown when it is removed decides most about the outcome, so early ones should not be missed.",
    signs: &[
        "colours and structures that differ between the two halves",
        "an irregular pigment network, with lines of unequal thickness and colour",
        "dots and globules of unequal size, or streaks at a part of the edge only",
        "a blue-white veil, or areas without structure off the centre",
        "white scar-like and peppered gray areas, where it has regressed",
        "shiny white lines in polarised light, and irregular vessels",
    ],
    alike: "Atypical nevi, pigmented seborrhoeic keratoses and pigmented basal cell carcinomas. Melanomas without pigment are \
            pink and easily taken for something harmless.",
};

const NEVUS: Guide = Guide {
    title: "Melanocytic nevus",
    nature: "benign",
    what: "A mole: a benign growth of melanocytes. Most people have several, and most of one person's look alike.",
    signs: &[
        "symmetry of colours and structures, with one or two shades of brown",
        "a regular pigment network that fades towards the edge",
        "globules of even size and distribution, or one homogeneous colour",
        "in moles that are raised and old: curved vessels like commas",
    ],
    alike: "Early melanoma. A mole that differs from a person's others, or that changes, is looked at more closely.",
};

const BASAL: Guide = Guide {
    title: "Basal cell carcinoma",
    nature: "malignant",
    what: "The most frequent cancer of the skin. It grows slowly and very rarely spreads to other organs, but destroys the tissue \
           around it where it is left.",
    signs: &[
        "sharp, branching vessels like those of a tree",
        "large blue-gray ovoid nests, and smaller blue-gray globules",
        "leaf-like areas at the edge and structures like the spokes of a wheel",
        "small erosions or an ulcer, and shiny white areas",
        "no pigment network",
    ],
    alike: "Melanoma where it is pigmented; dermal nevi and sebaceous hyperplasia where it is not.",
};

const KERATOSES: Guide = Guide {
    title: "Actinic keratosis and intraepithelial carcinoma (Bowen's disease)",
    nature: "precancerous, or a cancer that has not grown below the outer layer of the skin",
    what: "Changed cells of the outer layer of the skin, mostly from years of sunlight. Some of them grow into an invasive \
           squamous cell carcinoma.",
    signs: &[
        "scale on the surface, on skin that has seen much sun",
        "on the face: a red pseudonetwork around pale follicles with yellowish plugs, like a strawberry",
        "in Bowen's disease: clusters of coiled vessels like tiny knots, and scale",
        "where pigmented: brown or gray dots, in Bowen's disease often in lines",
    ],
    alike: "Superficial basal cell carcinoma, psoriasis and eczema; where pigmented, lentigo maligna.",
};

const ACTINIC: Guide = Guide {
    title: "Actinic keratosis",
    nature: "precancerous",
    what: "A rough patch of changed cells of the outer layer of the skin, from years of sunlight. A small share of them grow into \
           a squamous cell carcinoma.",
    signs: &[
        "scale on the surface, on skin that has seen much sun",
        "on the face: a red pseudonetwork around pale follicles with yellowish plugs, like a strawberry",
        "where pigmented: gray or brown dots and rhombs around follicles",
    ],
    alike: "Bowen's disease, superficial basal cell carcinoma; where pigmented, lentigo maligna.",
};

const BENIGN_KERATOSIS: Guide = Guide {
    title: "Benign keratosis-like lesion",
    nature: "benign",
    what: "Three harmless growths of the outer layer of the skin that look alike: seborrhoeic keratoses, solar lentigines and \
           lichen-planus-like keratoses. They become frequent with age.",
    signs: &[
        "white or yellow dots like milia, and dark openings like comedones",
        "ridges and furrows like those of a brain",
        "a sharp, often moth-eaten edge, and lines like a fingerprint",
        "vessels like hairpins with a pale halo",
        "in lichen-planus-like keratoses: gray granules",
    ],
    alike: "Melanoma: where they are dark, inflamed, or regress with gray granules.",
};

const FIBROMA: Guide = Guide {
    title: "Dermatofibroma",
    nature: "benign",
    what: "A firm, harmless nodule of connective tissue, most often on the legs, sometimes after an insect bite or a small injury.",
    signs: &[
        "a white, scar-like patch in the middle",
        "a delicate pigment network around it",
        "a dimple when it is pressed from the sides",
    ],
    alike: "Nevi, and with unusual colours or vessels also melanoma.",
};

const VASCULAR: Guide = Guide {
    title: "Vascular lesion",
    nature: "mostly benign",
    what: "A growth or widening of blood vessels, or bleeding into the skin: angiomas, angiokeratomas, pyogenic granulomas, \
           haemorrhages.",
    signs: &[
        "round, sharply bounded lagoons of red, purple or blue-black",
        "pale bands between them, and no pigment network",
        "in haemorrhage: one red-black area without structure, which moves outwards with time",
    ],
    alike: "Melanoma where it is almost black; a pyogenic granuloma can look like a melanoma without pigment.",
};

const SQUAMOUS: Guide = Guide {
    title: "Squamous cell carcinoma",
    nature: "malignant",
    what: "A cancer of the outer layer of the skin, mostly where it has seen much sun. It can spread, more so from lips and ears, \
           and where it is large or deep.",
    signs: &[
        "white or yellow masses of keratin, and white circles around follicles",
        "white areas without structure",
        "looped or coiled vessels, often with a pale halo",
        "ulcers, and spots of blood in the keratin",
    ],
    alike: "Actinic keratosis, keratoacanthoma, viral warts, and melanoma without pigment.",
};

/// The names of classes in lower case, without anything but letters, and the texts.
const GUIDES: [(&[&str], Guide); 9] = [
    (&["mel", "melanoma"], MELANOMA),
    (&["nv", "nevus", "nevi", "melanocyticnevus", "melanocyticnevi"], NEVUS),
    (&["bcc", "basalcellcarcinoma"], BASAL),
    (&["akiec"], KERATOSES),
    (&["ak", "actinickeratosis", "actinickeratoses"], ACTINIC),
    (&["bkl", "benignkeratosis"], BENIGN_KERATOSIS),
    (&["df", "dermatofibroma"], FIBROMA),
    (&["vasc", "vascularlesion", "vascularlesions"], VASCULAR),
    (&["scc", "squamouscellcarcinoma"], SQUAMOUS),
];

/// The text on a class, if it is one of these.
pub(super) fn of(class: &str) -> Option<&'static Guide> {
    let name: String = class.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    GUIDES.iter().find(|(names, _)| names.contains(&name.as_str())).map(|(_, guide)| guide)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::HAM10000_CLASSES;

    #[test]
    fn every_class_of_the_challenges_has_a_text() {
        for class in HAM10000_CLASSES.iter().chain(&["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC"]) {
            assert!(of(class).is_some_and(|guide| guide.signs.len() > 2), "{class}");
        }
        assert_eq!(of("Basal cell carcinoma"), of("bcc"));
        assert_ne!(of("AK"), of("AKIEC"));
    }

    #[test]
    fn nothing_is_invented() {
        assert_eq!(["UNK", "0", "red", "", "malignant"].map(of), [None; 5]);
    }
}
