import Glibc
import Testing

@testable import WeightFile

@Suite struct AtomicFileTests {
  @Test func theOldFileStaysUntilCommitAndTheNewOneIsComplete() throws {
    let folder = TemporaryFolder()
    let path = folder.file("out.bin")
    writeBytes([1, 2, 3], to: path)
    let file = try AtomicFile(path: path)
    let first = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 / 3) }
    try file.write(first)
    try file.write([7, 8, 9])
    #expect(file.byteCount == 300_003)
    #expect(readBytes(path) == [1, 2, 3])
    try file.pwrite([42, 43], at: 300_001)
    try file.write([10])
    try file.commit()
    #expect(readBytes(path) == first + [7, 42, 43, 10])
    #expect(folder.contents == ["out.bin"])
  }

  @Test func leavesNothingBehindWithoutCommit() throws {
    let folder = TemporaryFolder()
    do {
      let file = try AtomicFile(path: folder.file("a"))
      try file.write([1])
      #expect(folder.contents.count == 1)
      #expect(folder.contents != ["a"])
    }
    #expect(folder.contents == [])
    let cancelled = try AtomicFile(path: folder.file("b"))
    cancelled.cancel()
    #expect(folder.contents == [])
  }

  @Test func twoWritersOfOneNameDoNotMixTheirBytes() throws {
    let folder = TemporaryFolder()
    let first = try AtomicFile(path: folder.file("a"))
    let second = try AtomicFile(path: folder.file("a"))
    try first.write([1])
    try second.write([2])
    try second.commit()
    try first.commit()
    #expect(readBytes(folder.file("a")) == [1])
    #expect(folder.contents == ["a"])
  }

  @Test func writesThroughALinkToTheFileBehindIt() throws {
    let folder = TemporaryFolder()
    writeBytes([1], to: folder.file("real"))
    symlink("real", folder.file("link"))
    let file = try AtomicFile(path: folder.file("link"))
    try file.write([2])
    try file.commit()
    #expect(readBytes(folder.file("real")) == [2])
    var status = stat()
    #expect(lstat(folder.file("link"), &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
  }

  @Test func aLongNameStillFits() throws {
    let folder = TemporaryFolder()
    let name = String(repeating: "ö", count: 127)
    let file = try AtomicFile(path: folder.file(name))
    try file.write([5])
    try file.commit()
    #expect(folder.contents == [name])
  }

  @Test func aFullDiskIsSaidInASentenceAndLeavesNothing() throws {
    let folder = TemporaryFolder()
    do {
      let file = try AtomicFile(path: folder.file("a"))
      let full = open("/dev/full", O_WRONLY)
      dup2(full, file.descriptor)
      close(full)
      try file.write([UInt8](repeating: 1, count: 1000))
      let expected = OutputFileError.diskFull(file: folder.file("a"), neededBytes: nil)
      #expect(throws: expected) { try file.commit() }
      #expect(throws: expected) { try file.write([UInt8](repeating: 1, count: 1 << 20)) }
      #expect(
        expected.description
          == "The disk is full while writing \(folder.file("a")); free some space or write to another disk.")
    }
    #expect(folder.contents == [])
  }

  @Test func aFileLargerThanTheDiskIsRefusedBeforeItIsWritten() throws {
    let folder = TemporaryFolder()
    let file = try AtomicFile(path: folder.file("a"))
    try file.requireSpace(bytes: 1)
    #expect(throws: OutputFileError.diskFull(file: folder.file("a"), neededBytes: 1 << 60)) {
      try file.requireSpace(bytes: 1 << 60)
    }
  }

  @Test func placesThatCannotBeWrittenToAreNamedAtOnce() {
    let folder = TemporaryFolder()
    func error(_ path: String) -> OutputFileError? {
      do throws(OutputFileError) {
        _ = try AtomicFile(path: path)
        return nil
      } catch { return error }
    }
    let missing = folder.file("missing")
    #expect(
      error(missing + "/a")
        == .folder(file: missing + "/a", folder: missing, reason: "No such file or directory"))
    #expect(error(folder.path) == .notAFile(file: folder.path, found: "a folder"))
    #expect(error(missing + "/") == .notAFile(file: missing + "/", found: "the name of a folder"))
    #expect(error("") == .noName)
    #expect(error("/dev/null") == .notAFile(file: "/dev/null", found: "a device or a pipe"))
    chmod(folder.path, 0o500)
    // The superuser may write everywhere.
    if geteuid() != 0 {
      #expect(
        error(folder.file("a")) == .folder(file: folder.file("a"), folder: folder.path, reason: "Permission denied"))
    }
  }

  @Test func aTargetThatBecomesAFolderIsAnErrorAndLeavesNoTemporaryFile() throws {
    let folder = TemporaryFolder()
    let file = try AtomicFile(path: folder.file("a"))
    mkdir(folder.file("a"), 0o700)
    #expect(throws: OutputFileError.failed(file: folder.file("a"), reason: "Is a directory")) { try file.commit() }
    #expect(folder.contents == ["a"])
    rmdir(folder.file("a"))
  }
}

@Suite struct NumpyWriterTests {
  @Test func writesTheHeaderThatNumPyReads() throws {
    let folder = TemporaryFolder()
    try NumpyWriter.write([1.5, -2, 0, 4, 5, 6] as [Float], shape: [2, 3], to: folder.file("f.npy"))
    let dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
    var header: [UInt8] = [0x93]
    header += Array("NUMPY".utf8) + [1, 0, 118, 0]
    header += Array(dictionary.utf8)
    header += [UInt8](repeating: 0x20, count: 117 - dictionary.utf8.count) + [0x0A]
    #expect(header.count == 128)
    let bytes = readBytes(folder.file("f.npy"))
    #expect(Array(bytes.prefix(128)) == header)
    #expect(Array(bytes.dropFirst(128).prefix(8)) == [0, 0, 0xC0, 0x3F, 0, 0, 0, 0xC0])
    #expect(bytes.count == 128 + 24)
  }

  @Test func writesVectorsScalarsAndIntegers() throws {
    let folder = TemporaryFolder()
    func header(_ name: String) -> String {
      let bytes = readBytes(folder.file(name))
      return String(decoding: bytes[10..<(bytes.firstIndex(of: 0x0A) ?? 10)], as: UTF8.self)
    }
    try NumpyWriter.write([1, 255] as [UInt8], shape: [2], to: folder.file("u"))
    #expect(header("u").hasPrefix("{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }"))
    #expect(readBytes(folder.file("u")).suffix(2) == [1, 255])
    try NumpyWriter.write([-2] as [Int64], shape: [], to: folder.file("i"))
    #expect(header("i").hasPrefix("{'descr': '<i8', 'fortran_order': False, 'shape': (), }"))
    #expect(readBytes(folder.file("i")).suffix(8) == [0xFE, 255, 255, 255, 255, 255, 255, 255])
    try NumpyWriter.write([] as [Float], shape: [0, 4], to: folder.file("e"))
    #expect(readBytes(folder.file("e")).count % 64 == 0)
  }
}
