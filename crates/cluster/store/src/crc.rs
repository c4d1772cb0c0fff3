//! CRC-32C (Castagnoli), the checksum of every frame on disk.
//!
//! Called by `frame`. It finds torn and rotten bytes; it is no protection against a forger.

const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Tables for eight bytes a step: a build without optimisation must not spend its time here.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut byte = 0;
    while byte < 256 {
        let mut step = 1;
        while step < 8 {
            let before = tables[step - 1][byte];
            tables[step][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            step += 1;
        }
        byte += 1;
    }
    tables
}

/// The checksum of `bytes`, going on from the checksum `before` of what came earlier (0 to begin).
pub(crate) fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    let mut crc = !before;
    let mut eights = bytes.chunks_exact(8);
    for c in &mut eights {
        let low = u32::from_le_bytes([c[0], c[1], c[2], c[3]]) ^ crc;
        let [a, b, d, e] = low.to_le_bytes();
        let t = &TABLES;
        crc = t[7][a as usize]
            ^ t[6][b as usize]
            ^ t[5][d as usize]
            ^ t[4][e as usize]
            ^ t[3][c[4] as usize]
            ^ t[2][c[5] as usize]
            ^ t[1][c[6] as usize]
            ^ t[0][c[7] as usize];
    }
    for &byte in eights.remainder() {
        crc = (crc >> 8) ^ TABLES[0][((crc ^ u32::from(byte)) & 0xff) as usize];
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn matches_the_published_check_values() {
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(0, &[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(crc32c(0, b"12345"), b"6789"), 0xe306_9283);
    }
}
