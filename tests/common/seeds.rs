//! Small inputs, intact ones, that mutations and fuzzers begin from.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use zip::CompressionMethod;

use super::files::{sheet_of, workbook, zipped};
use super::outside::Cached;
use super::pictures::{PngKind, flat_jpeg};
use super::runs::Run;

/// Inputs of a fuzz target.
pub struct Seeds {
    pub target: &'static str,
    pub inputs: Vec<Vec<u8>>,
}

fn gradient() -> DynamicImage {
    RgbImage::from_fn(24, 16, |x, y| Rgb([x as u8 * 10, y as u8 * 15, 128])).into()
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

/// One of each format and of each way that colours are stored.
pub fn pictures() -> Vec<Vec<u8>> {
    use ImageFormat::{Bmp, Jpeg, Png, Tiff, WebP};
    let plain = gradient();
    let mut all: Vec<Vec<u8>> = [Bmp, Jpeg, Png, Tiff, WebP].map(|format| encoded(&plain, format)).into();
    let deep = [plain.to_rgb16().into(), plain.to_luma8().into(), plain.to_luma16().into(), plain.to_rgba8().into()];
    for picture in deep as [DynamicImage; 4] {
        all.extend([Png, Tiff].map(|format| encoded(&picture, format)));
    }
    for (colour, depth, interlaced) in [(0, 1, false), (3, 4, true), (4, 16, true), (6, 8, true)] {
        let samples = [1, 0, 3, 2, 4, 0, 4][usize::from(colour)].max(1);
        all.push(PngKind { colour, depth, interlaced }.png(9, 7, |x, y| vec![(x * y % 2) as u16; samples]));
    }
    let blocks: [&[u8]; 2] = [&[200, 100, 50, 220], &[10, 250, 90, 128]];
    all.extend([0, 2].map(|transform| flat_jpeg(&blocks, Some(transform))));
    all
}

/// A table of each layout, behind the number of its kind.
fn tables() -> Vec<Vec<u8>> {
    let head = ["Image Name", "Histological Diagnosis", "Common Nevus", "Atypical Nevus", "Melanoma", "Asymmetry"];
    let rows =
        [head, ["IMD001", "", "X", "", "", "0"], ["IMD002", "", "", "X", "", "1"], ["IMD003", "", "", "", "X", "2"]];
    let texts = [
        "lesion_id,image_id,dx,dx_type,age,sex,localization\nL1,ISIC_1,nv,histo,,male,back\n\
         L1,ISIC_2,nv,histo,50.0,male,back\nL2,ISIC_3,mel,histo,60,female,face\n",
        "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nISIC_1,1.0,0.0,0.0,0.0,0.0,0.0,0.0\nISIC_2,0,1,0,0,0,0,0\nISIC_3,0,0,1,0,0,0,0\n",
        "image,lesion_id,diagnosis_confirm_type\nISIC_1,L1,histopathology\nISIC_2,L2,x\nISIC_3,L1,x\n",
        "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\nISIC_1,0,1,0,0,0,0,0,0,0\nISIC_2,1,0,0,0,0,0,0,0,0\nISIC_3,0,0,0,0,0,0,0,1,0\n",
        "image,age_approx,anatom_site_general,lesion_id,sex\nISIC_1,55.0,anterior torso,B1,female\nISIC_2,,,,\nISIC_3,30,back,B1,male\n",
        "|| Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry ||\n|| IMD001 || || 0 || 0 || T ||\n\
         || IMD002 || Melanoma || 2 || 2 || AT ||\n|| IMD003 || || 1 || 1 || T ||\n\nLegends:\n",
        "",
        "path,label,group,split,age,sex,site\n1.png,a,g1,train,50,male,back\n\"2.png\",b,g2,val,,,\n3.png,a|b,g3,test,3,x,y\n",
        "path\tmask\n1.png\t1_mask.png\n2.png\t2_mask.png\n3.png\t3_mask.png\n",
        "image_id,label,group,split\n1.png,a,g,train\n2.png,b,h,val\n3.png,a,i,unused\n",
        "path;label;group;split\n1.png;a;g;train\n2.png;b;h;val\n3.png;a;i;test\n",
        &sheet_of(
            "<row r=\"1\"><c r=\"A1\" t=\"str\"><v>Image Name</v></c><c r=\"B1\" t=\"str\"><v>Common Nevus</v></c>\
             <c r=\"C1\" t=\"str\"><v>Atypical Nevus</v></c><c r=\"D1\" t=\"str\"><v>Melanoma</v></c></row>\
             <row r=\"2\"><c r=\"A2\" t=\"str\"><v>IMD001</v></c><c r=\"C2\" t=\"str\"><v>X</v></c></row>\
             <row r=\"3\"><c r=\"A3\" t=\"str\"><v>IMD003</v></c><c r=\"D3\" t=\"str\"><v>X</v></c></row>",
        ),
    ];
    let of = |(kind, text): (usize, &str)| {
        let table = if text.is_empty() { workbook(&rows) } else { text.as_bytes().to_vec() };
        [&[kind as u8][..], &table].concat()
    };
    texts.into_iter().enumerate().map(of).collect()
}

fn archives() -> Vec<Vec<u8>> {
    let png = encoded(&gradient(), ImageFormat::Png);
    let mask = PngKind { colour: 0, depth: 1, interlaced: false }.png(24, 16, |x, _| vec![u16::from(x > 9)]);
    let table = "lesion_id,image_id,dx\nL1,ISIC_1,nv\nL2,ISIC_2,mel\n".as_bytes().to_vec();
    let picture = |id: u32| (format!("images/ISIC_{id}.png"), png.clone());
    let drawn = |id: u32| (format!("masks/ISIC_{id}_segmentation.png"), mask.clone());
    let mut whole = vec![("HAM10000_metadata.csv".to_owned(), table.clone())];
    whole.extend([1, 2].map(picture).into_iter().chain([1, 2].map(drawn)));
    let of = |files: &[(String, Vec<u8>)], method| {
        let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        zipped(&files, method)
    };
    let classes = [("a/1.png".to_owned(), png.clone()), ("b/2.png".to_owned(), png.clone())];
    let inner = of(&whole[1..], CompressionMethod::Stored);
    let nested = |method| of(&[whole[0].clone(), ("HAM10000_images_part_1.zip".into(), inner.clone())], method);
    let (stored, deflated) = (CompressionMethod::Stored, CompressionMethod::Deflated);
    vec![of(&whole, stored), of(&whole, deflated), of(&classes, deflated), nested(stored), nested(deflated)]
}

fn cached() -> Vec<Vec<u8>> {
    let cached = Cached::new();
    cached.seeds().enumerate().map(|(kind, file)| [&[kind as u8][..], file].concat()).collect()
}

/// The seeds of the targets that read datasets and run folders.
pub fn all() -> [Seeds; 5] {
    [
        Seeds { target: "dataset", inputs: tables() },
        Seeds { target: "archive", inputs: archives() },
        Seeds { target: "picture", inputs: pictures() },
        Seeds { target: "pixel_cache", inputs: cached() },
        Seeds { target: "run_folder", inputs: Run::new().seeds() },
    ]
}
