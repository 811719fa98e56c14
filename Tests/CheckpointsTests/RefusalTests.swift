import Foundation
import Testing

@testable import Checkpoints

/// A file that cannot be used must say so in one sentence, and nothing in it may run.
struct RefusalTests {
  private static let system = "posix.system"

  @Test(arguments: [
    ("evil_entry.pt", "the checkpoint"), ("evil_root.pt", "the checkpoint"),
    ("evil_inside.ckpt", "[\"state_dict\"][\"extra\"]"),
  ])
  func aCallInThePickleIsRefusedByNameAndNotExecuted(name: String, place: String) throws {
    #expect(
      failure(of: fixture(name)) == .foreign(file: fixture(name), global: RefusalTests.system, place: place))
    #expect(!FileManager.default.fileExists(atPath: "executed"))
  }

  @Test func aCallBesideTheStateDictionaryIsNotExecuted() throws {
    let checkpoint = try Checkpoint(path: fixture("evil_beside.ckpt"))
    #expect(checkpoint.tensors["weight"]?.floats() == [1, 1])
    #expect(!FileManager.default.fileExists(atPath: "executed"))
  }

  @Test func aCallInTheSettingsIsRefusedByName() throws {
    let archive = try TorchArchive(path: fixture("evil_settings.pt"))
    #expect(throws: CheckpointError.self) { try archive.configuration(at: "cfg") }
    do {
      _ = try archive.configuration(at: "cfg")
    } catch {
      #expect(
        error
          == .foreign(
            file: fixture("evil_settings.pt"), global: RefusalTests.system, place: "[\"cfg\"][\"layers\"]"))
    }
    #expect(try archive.checkpoint(at: "model").tensors.count == 1)
  }

  @Test(arguments: [
    ("module.pt", "torch.nn.modules.linear.Linear"), ("complex.pt", "torch.ComplexFloatStorage"),
  ])
  func anObjectThatIsNoTensorIsRefusedByName(name: String, global: String) {
    guard case .foreign(_, let found, _) = failure(of: fixture(name)) else {
      Issue.record("\(name) was not refused")
      return
    }
    #expect(found == global)
  }

  @Test func formatsThatCannotBeReadSayHowToSaveThemAgain() {
    #expect(failure(of: fixture("legacy.pt")) == .legacyTorch(file: fixture("legacy.pt")))
    #expect(failure(of: fixture("big_endian.pt")) == .bigEndian(file: fixture("big_endian.pt")))
    guard case .compressed = failure(of: fixture("compressed.pt")) else {
      Issue.record("compressed.pt was not refused")
      return
    }
    guard case .damaged = failure(of: fixture("expanded.pt")) else {
      Issue.record("a tensor of 1000 elements from a storage of one was not refused")
      return
    }
  }

  private static let contents: [(FileKind, [UInt8])] = [
    (.html, Array("\n<!DOCTYPE html><html></html>".utf8)),
    (.html, Array("<HTML>".utf8)),
    (.largeFilePointer, Array("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n".utf8)),
    (.text, Array("weights to follow\n".utf8)),
    (.text, Array("{\"error\": \"not found\"}".utf8)),
    (.gzip, [0x1F, 0x8B, 8, 0, 0, 0, 0, 0]),
    (.gguf, Array("GGUF".utf8) + [3, 0, 0, 0]),
    (.pickle, [0x80, 4, 0x4E, 0x2E]),
    (.unknown, [0, 1, 2, 3]),
    (.empty, []),
  ]

  @Test(arguments: contents) func theWrongKindOfFileIsNamed(kind: FileKind, bytes: [UInt8]) throws {
    let folder = try TemporaryFolder()
    for name in ["model.safetensors", "model.bin"] {
      let path = try folder.write(Data(bytes), as: name)
      let error = failure(of: path)
      #expect(error == .wrongKind(file: path, found: kind, expected: "a safetensors file or a torch checkpoint"))
      #expect(error?.description.contains(kind.found.thing) == true)
    }
  }

  @Test func aFolderOrAMissingFileOrAForeignArchiveIsNamed() throws {
    let folder = try TemporaryFolder()
    #expect(failure(of: folder.path) == .folder(file: folder.path))
    #expect(failure(of: "\(folder.path)/none.bin") == .missing(file: "\(folder.path)/none.bin"))
    guard case .wrongKind(_, .zip, _) = failure(of: fixture("no_torch.zip")) else {
      Issue.record("a zip without a pickle was not refused")
      return
    }
  }

  @Test func aKeyThatIsNotThereIsNamedWithThoseThatAre() throws {
    let archive = try TorchArchive(path: fixture("beats.pt"))
    do {
      _ = try archive.checkpoint(at: "weights")
      Issue.record("a missing key was accepted")
    } catch {
      #expect(error.description.contains("\"weights\""))
      #expect(error.description.contains("\"cfg\", \"model\""))
    }
    #expect(throws: CheckpointError.self) { try archive.checkpoint(at: "cfg") }
    #expect(throws: CheckpointError.self) { try archive.configuration(at: "model") }
  }

  @Test func everyErrorIsOneSentenceThatNamesTheFile() {
    let errors: [CheckpointError] = [
      .missing(file: "F"), .folder(file: "F"), .notFolder(path: "F"), .unreadable(file: "F", reason: "r"),
      .wrongKind(file: "F", found: .html, expected: "e"), .wrongKind(file: "F", found: .safetensors, expected: "e"),
      .truncated(file: "F", expectedBytes: 2, foundBytes: 1), .archiveCut(file: "F"), .damaged(file: "F", what: "w"),
      .compressed(file: "F", entry: "e"), .legacyTorch(file: "F"), .bigEndian(file: "F"),
      .foreign(file: "F", global: "g", place: "p"), .elementType(file: "F", tensor: "t", found: "f"),
      .missingEntry(file: "F", entry: "e", found: "f"), .missingTensor(file: "F", tensor: "t", purpose: "p"),
      .unknownTensor(file: "F", tensor: "t", purpose: "p"),
      .shape(file: "F", tensor: "t", found: [1], expected: "e"), .missingPart(folder: "F", expected: "e"),
      .setting(file: "F", key: "k", found: "f", expected: "e"),
    ]
    for error in errors {
      let text = error.description
      #expect(text.hasPrefix("F: ") && text.hasSuffix(".") && !text.contains("\n"), "\(error)")
      #expect(text.count > 30, "\(error)")
    }
  }
}
