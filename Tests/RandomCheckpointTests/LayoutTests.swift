import Foundation
import Testing

@testable import RandomCheckpoint

@Suite struct LayoutTests {
  @Test func weightsThatDifferFromTheLayoutsAreRefusedAndNotLeftBehind() throws {
    let folder = try TemporaryFolder()
    let checkpoint = try RandomCheckpoint(layout: folder.write(smallLayout(crc32: 1)))
    let error = error { try checkpoint.write(to: folder.path) }
    guard case .checksum(_, "weight", 1, let found) = error else {
      Issue.record("found \(String(describing: error))")
      return
    }
    #expect(!FileManager.default.fileExists(atPath: "\(folder.path)/model.safetensors"))
    // With the right checksum the same layout is written.
    try RandomCheckpoint(layout: folder.write(smallLayout(crc32: found))).write(to: folder.path)
    #expect(FileManager.default.fileExists(atPath: "\(folder.path)/model.safetensors"))
  }

  @Test(
    arguments: [
      "../model.safetensors", "/model.safetensors", "a//b", "a/./b", "", "a/", "a\\u0000b",
      String(repeating: "n", count: 300),
    ])
  func filesOutsideTheFolderAreRefused(path: String) throws {
    try expectRefusal(of: smallLayout(path: path))
  }

  @Test(
    arguments: [
      "[-1]", "[0]", "[9223372036854775807,2]", "[4294967296,4294967296]", "[600000000]", "[1.5]", "[\"2\"]",
      "[99999999999999999999]",
    ])
  func absurdShapesAreRefused(shape: String) throws {
    try expectRefusal(of: smallLayout(shape: shape))
  }

  @Test func integersThatExceedAFileAreRefused() throws {
    try expectRefusal(of: smallLayout(shape: "[300000000]", range: ""))
  }

  @Test func otherFaultsAreRefused() throws {
    try expectRefusal(of: smallLayout(format: "something else"))
    try expectRefusal(of: smallLayout(kind: "program"))
    try expectRefusal(of: smallLayout(kind: "text"))
    try expectRefusal(of: smallLayout(kind: "merges"))
    try expectRefusal(of: smallLayout(range: "\"mean\":1,"))
    let row = #"{"name":"weight","shape":[2],"mean":0,"bound":1,"crc32":0}"#
    let head = #"{"format":"\#(Layout.format)","name":"x","files":[{"path":"a.pt","kind":"torch","#
    try expectRefusal(of: head + #""tensors":[\#(row),\#(row)]}]}"#)
    try expectRefusal(of: head + #""cfg":[{"key":"width"}],"tensors":[\#(row)]}]}"#)
    try expectRefusal(of: head + #""cfg":[{"key":"width","int":4294967296}],"tensors":[\#(row)]}]}"#)
  }

  @Test func layoutsCutShortAnywhereAreRefused() throws {
    let folder = try TemporaryFolder()
    let text = smallLayout()
    for length in 0..<text.utf8.count - 1 {
      let path = try folder.write(String(decoding: text.utf8.prefix(length), as: UTF8.self))
      #expect(error { _ = try RandomCheckpoint(layout: path) } != nil, "\(length) bytes")
    }
  }

  @Test func missingFilesAreNamed() throws {
    let folder = try TemporaryFolder()
    let missing = "\(folder.path)/missing"
    let noLayout = try #require(error { _ = try RandomCheckpoint(layout: missing) })
    #expect(noLayout.description.hasPrefix(missing))
    let checkpoint = try RandomCheckpoint(layout: folder.write(smallLayout()))
    let noMerges = try #require(error { try checkpoint.write(to: folder.path, merges: missing) })
    #expect(noMerges.description.hasPrefix(missing))
  }

  @Test func otherMergesThanClipsAreRefused() throws {
    let folder = try TemporaryFolder()
    let checkpoint = try RandomCheckpoint(layout: folder.write(smallLayout()))
    let merges = try folder.write("#version: 0.2\ni n\nt h\n", "merges.txt")
    let error = error { try checkpoint.write(to: folder.path, merges: merges) }
    guard case .merges(merges, 48_894, 2) = error else {
      Issue.record("found \(String(describing: error))")
      return
    }
  }

  private func expectRefusal(of text: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write(text)
    let found = error { _ = try RandomCheckpoint(layout: path) }
    guard case .layout(path, let reason) = found else {
      Issue.record("found \(String(describing: found))", sourceLocation: sourceLocation)
      return
    }
    #expect(!reason.isEmpty, sourceLocation: sourceLocation)
  }
}
